"""Turn a data set round: what was the completion becomes the prompt, the instruction is predicted.

Short completions from any instruction data. Source: arXiv 2401.13586, section on AlpacaDataShort;
the wording of the prompt is ours.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedTokenizerBase

from orchestrator.foundation.safe_write import check_new, write_new
from trainers.config import ModelConfig
from trainers.data.examples import Example, pair
from trainers.data.readers import read_examples
from trainers.data.template_spans import compile_template, depends_on_texts, describe_error
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


class SideLengths(BaseModel):
    """Mean lengths of the two sides of the pairs, in `unit`, and R_g, the second over the first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: str
    mean_prompt: float
    mean_completion: float
    generation_ratio: float


class Inverted(BaseModel):
    """What was written, and how lengths have changed.

    Of `num_with_history` chats the earlier turns, of `num_with_system` ones the system turn is in
    the new prompt only if the template shows them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    num_examples: int
    num_with_input: int
    num_with_history: int
    num_with_system: int
    before: SideLengths
    after: SideLengths


def invert(
    data: str,
    out: Path,
    *,
    split: str,
    template_path: Path | None,
    model: str | None,
    is_forced: bool,
) -> Inverted:
    """Write the inverted examples of `data` to `out` as JSONL with prompt and completion.

    Lengths are in tokens of `model`'s tokenizer, or in characters if it is None.

    Raises:
        InputError: data or template cannot be read or do not fit, or `out` may not be written.
    """
    _check_out(data, out, is_forced=is_forced)
    template = _template(template_path)
    tokenizer = load_tokenizer(ModelConfig(path=model)) if model else None
    examples = read_examples(data, split=split)
    inverted = _all_inverted(examples, template)
    lines = (
        json.dumps({"prompt": one.prompt, "completion": one.completion}, ensure_ascii=False)
        for one in inverted
    )
    write_new(out, "".join(f"{line}\n" for line in lines), is_forced=is_forced)
    return Inverted(
        path=str(out),
        num_examples=len(examples),
        num_with_input=sum(bool(example.input) for example in examples),
        num_with_history=sum(len(_history(example)) > 0 for example in examples),
        num_with_system=sum(bool(_system(example)) for example in examples),
        before=_lengths(examples, tokenizer),
        after=_lengths(inverted, tokenizer),
    )


def _check_out(data: str, out: Path, *, is_forced: bool) -> None:
    if out.suffix.lower() != ".jsonl":
        raise InputError(
            Problem(
                message=f"must end in .jsonl, which data.path reads, got {out}",
                where="--output",
                fix="give another name",
            )
        )
    check_new(out, is_forced=is_forced)
    if out.exists() and Path(data).expanduser().exists() and out.samefile(Path(data).expanduser()):
        raise InputError(
            Problem(
                message="is the data itself, which would be lost",
                where=str(out),
                fix="give another name",
            )
        )


def _template(path: Path | None) -> jinja2.Template:
    if path is None:
        return compile_template(Path("the default template"), DEFAULT_TEMPLATE)
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            Problem(
                message=f"cannot be read: {getattr(error, 'strerror', None) or error}",
                where=str(path),
                fix=f"give a UTF-8 Jinja file; it may use {_VARIABLES}",
            )
        ) from None
    return compile_template(path, source)


def _all_inverted(examples: Sequence[Example], template: jinja2.Template) -> list[Example]:
    """Each example turned round, or one InputError with all that cannot be."""
    inverted: list[Example] = []
    problems: list[Problem] = []
    for example in examples:
        try:
            prompt = _rendered(example, template, completion=example.completion)
        except Exception as error:  # A template is a program: it may fail in any way.
            problems.append(_misfit(example, f"cannot be rendered: {describe_error(error)}"))
            continue
        if not prompt.strip():
            problems.append(_misfit(example, "renders an empty prompt"))
        inverted.append(
            pair(example.id, prompt=prompt, completion=example.instruction or example.prompt)
        )
    if not problems and not _shows_completion(examples, template):
        fault = "renders the same prompt whatever the completion says: show {{ completion }}"
        problems.append(Problem(message=f"the template {fault}"))
    if len(problems) > _MAX_LISTED:
        more = Problem(message=f"and {len(problems) - _MAX_LISTED} more problems")
        problems = [*problems[:_MAX_LISTED], more]
    if problems:
        raise InputError(problems)
    return inverted


def _misfit(example: Example, fault: str) -> Problem:
    return Problem(
        message=f"the template {fault}", where=example.id, fix=f"it may use {_VARIABLES}"
    )


def _rendered(example: Example, template: jinja2.Template, *, completion: str) -> str:
    text: str = template.render(
        completion=completion,
        instruction=example.instruction or example.prompt,
        input=example.input or "",
        prompt=example.prompt,
        system=_system(example),
        messages=[{"role": turn.role, "content": turn.content} for turn in example.messages[:-1]],
    )
    return text


def _shows_completion(examples: Sequence[Example], template: jinja2.Template) -> bool:
    """Whether any prompt depends on its completion; yes in doubt, where others cannot be shown."""

    def depends(example: Example) -> bool:
        def render(texts: Sequence[str]) -> str:
            return _rendered(example, template, completion=texts[0])

        return depends_on_texts(render([example.completion]), 1, render)

    return any(map(depends, examples))


def _system(example: Example) -> str:
    return next((turn.content for turn in example.messages if turn.role == "system"), "")


def _history(example: Example) -> list[str]:
    """What was said before the last user turn, but for the system turn."""
    said = [turn.content for turn in example.messages[:-1] if turn.role != "system"]
    return said[:-1]


def _lengths(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase | None) -> SideLengths:
    """Of all that was said before the completion, without any training template."""
    prompts = ["".join(turn.content for turn in one.messages[:-1]) for one in examples]
    completions = [example.completion for example in examples]
    in_all = [sum(_text_lengths(texts, tokenizer)) for texts in (prompts, completions)]
    return SideLengths(
        unit="characters" if tokenizer is None else "tokens",
        mean_prompt=in_all[0] / len(examples),
        mean_completion=in_all[1] / len(examples),
        generation_ratio=in_all[1] / in_all[0],
    )


def _text_lengths(texts: list[str], tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    if tokenizer is None:
        return [len(text) for text in texts]
    encoding: Any = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)
    return [len(ids) for ids in encoding["input_ids"]]
