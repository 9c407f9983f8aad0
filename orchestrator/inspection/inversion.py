"""Invert a data set: the completion becomes the prompt, the instruction the completion.

Inversion makes data with short completions from any instruction data. Source: arXiv 2401.13586,
section on AlpacaDataShort; the wording of the prompt is ours.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedTokenizerBase

from orchestrator.foundation.safe_write import check_overwrite, write_output
from trainers.config import ModelConfig
from trainers.data.data_files import find_data_files, is_local
from trainers.data.examples import Example, check_texts, pair
from trainers.data.readers import read_examples
from trainers.data.template_spans import compile_template, depends_on_fields, describe_error
from trainers.foundation.errors import InputError, Problem
from trainers.models.loading import load_tokenizer

DEFAULT_TEMPLATE = """\
Here is a text that somebody wrote because an instruction asked for it\
{% if input %}, and the input that the instruction came with{% endif %}.\
 Say what the instruction was.{% if input %}

Input:
{{ input }}{% endif %}

Text:
{{ completion }}"""
_MAX_LISTED = 20  # problems
_VARIABLES = "completion, instruction, input, prompt, system and messages"


class PairLengths(BaseModel):
    """Mean lengths of prompts and completions in `unit`, and R_g (completion over prompt)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: str
    mean_prompt: float
    mean_completion: float
    generation_ratio: float


class InversionResult(BaseModel):
    """The written file, and the lengths before and after.

    The new prompts contain the earlier turns of the `num_with_history` chats and the system turns
    of the `num_with_system` chats only if the template uses them. The weights of examples are kept,
    those of turns and parts in `num_with_weights` examples are not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    num_examples: int
    num_with_input: int
    num_with_history: int
    num_with_system: int
    num_with_weights: int
    before: PairLengths
    after: PairLengths


def invert_data(
    data: str,
    out: Path,
    *,
    split: str,
    template_path: Path | None,
    model: str | None,
    overwrite: bool,
) -> InversionResult:
    """Write the inverted examples of `data` to `out` as JSONL with prompt and completion.

    Lengths are in tokens of `model`'s tokenizer, or in characters if it is None.

    Raises:
        InputError: the data or the template is invalid, or `out` exists or cannot be written.
    """
    _check_out(data, out, overwrite=overwrite)
    template = _load_template(template_path)
    tokenizer = load_tokenizer(ModelConfig(path=model)) if model else None
    examples = read_examples(data, split=split)
    check_texts(examples, "plw data invert needs")
    inverted = _invert_all(examples, template)
    lines = (
        json.dumps(_record(new, example.sample_weight), ensure_ascii=False)
        for example, new in zip(examples, inverted, strict=True)
    )
    write_output(out, "".join(f"{line}\n" for line in lines), overwrite=overwrite)
    return InversionResult(
        path=str(out),
        num_examples=len(examples),
        num_with_input=sum(bool(example.input) for example in examples),
        num_with_history=sum(len(_history(example)) > 0 for example in examples),
        num_with_system=sum(bool(_system(example)) for example in examples),
        num_with_weights=sum(_has_weights(example) for example in examples),
        before=_lengths(examples, tokenizer),
        after=_lengths(inverted, tokenizer),
    )


def _record(example: Example, weight: float) -> dict[str, Any]:
    texts = {"prompt": example.prompt, "completion": example.completion}
    return texts if weight == 1 else {**texts, "weight": weight}


def _has_weights(example: Example) -> bool:
    return any(
        turn.weight is not None or turn.train is False or turn.part_weights
        for turn in example.messages
    )


def _check_out(data: str, out: Path, *, overwrite: bool) -> None:
    if out.suffix.lower() != ".jsonl":
        raise InputError(
            Problem(
                message=f"must end in .jsonl, a format of data.path, got {out}",
                where="--output",
                fix="give another name",
            )
        )
    check_overwrite(out, overwrite=overwrite)
    inputs = find_data_files(data) if is_local(data) else []
    if out.exists() and any(out.samefile(file.path) for file in inputs):
        raise InputError(
            Problem(
                message="is the input data, which would be overwritten",
                where=str(out),
                fix="give another name",
            )
        )


def _load_template(path: Path | None) -> jinja2.Template:
    if path is None:
        return compile_template(Path("the default template"), DEFAULT_TEMPLATE)
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            Problem(
                message=f"cannot be read: {getattr(error, 'strerror', None) or error}",
                where=str(path),
                fix=f"give a UTF-8 Jinja file; it can use {_VARIABLES}",
            )
        ) from None
    return compile_template(path, source)


def _invert_all(examples: Sequence[Example], template: jinja2.Template) -> list[Example]:
    """Invert all examples; raise one InputError with all examples that cannot be inverted."""
    inverted: list[Example] = []
    problems: list[Problem] = []
    for example in examples:
        try:
            prompt = _render(example, template, completion=example.completion)
        except Exception as error:  # A template is a program and can raise any error.
            problems.append(
                _template_problem(example, f"cannot be rendered: {describe_error(error)}")
            )
            continue
        if not prompt.strip():
            problems.append(_template_problem(example, "renders an empty prompt"))
        inverted.append(
            pair(example.id, prompt=prompt, completion=example.instruction or example.prompt)
        )
    if not problems and not _depends_on_completion(examples, template):
        fault = "renders prompts that do not depend on the completion: add {{ completion }}"
        problems.append(Problem(message=f"the template {fault}"))
    if len(problems) > _MAX_LISTED:
        more = Problem(message=f"and {len(problems) - _MAX_LISTED} more problems")
        problems = [*problems[:_MAX_LISTED], more]
    if problems:
        raise InputError(problems)
    return inverted


def _template_problem(example: Example, fault: str) -> Problem:
    return Problem(
        message=f"the template {fault}", where=example.id, fix=f"it can use {_VARIABLES}"
    )


def _render(example: Example, template: jinja2.Template, *, completion: str) -> str:
    text: str = template.render(
        completion=completion,
        instruction=example.instruction or example.prompt,
        input=example.input or "",
        prompt=example.prompt,
        system=_system(example),
        messages=[{"role": turn.role, "content": turn.content} for turn in example.messages[:-1]],
    )
    return text


def _depends_on_completion(examples: Sequence[Example], template: jinja2.Template) -> bool:
    """Return whether any prompt depends on its completion; True if that cannot be tested."""

    def depends(example: Example) -> bool:
        def render(texts: Sequence[str]) -> str:
            return _render(example, template, completion=texts[0])

        return depends_on_fields(render([example.completion]), 1, render)

    return any(map(depends, examples))


def _system(example: Example) -> str:
    return next((turn.content for turn in example.messages if turn.role == "system"), "")


def _history(example: Example) -> list[str]:
    """Return the turns before the last user turn, without the system turn."""
    turns = [turn.content for turn in example.messages[:-1] if turn.role != "system"]
    return turns[:-1]


def _lengths(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase | None) -> PairLengths:
    """Return the mean lengths of prompts (all turns before the completion) and completions."""
    prompts = ["".join(turn.content for turn in one.messages[:-1]) for one in examples]
    completions = [example.completion for example in examples]
    totals = [sum(_text_lengths(texts, tokenizer)) for texts in (prompts, completions)]
    return PairLengths(
        unit="characters" if tokenizer is None else "tokens",
        mean_prompt=totals[0] / len(examples),
        mean_completion=totals[1] / len(examples),
        generation_ratio=totals[1] / totals[0],
    )


def _text_lengths(texts: list[str], tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    if tokenizer is None:
        return [len(text) for text in texts]
    encoding: Any = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)
    return [len(ids) for ids in encoding["input_ids"]]
