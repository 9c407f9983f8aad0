"""Select held-out examples and store them in a file.

No model is needed, because a sweep checks its held-out examples before it trains.
"""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from evals.config import DistractorChoiceConfig, EvalConfig
from trainers.data.examples import Example, GivenTokens, Message, MessageRole, check_texts
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import write_text
from trainers.foundation.jsonl import parse_jsonl
from trainers.foundation.records import describe_fault

_MEASURES_OF_TEXTS = (
    "heldout_choice",
    "heldout_exact_match",
    "heldout_chrf",
    "memorisation",
)


class _MessageLine(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: MessageRole
    content: str
    fields: dict[str, Any] = {}


class _ExampleLine(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    messages: list[_MessageLine]
    instruction: str | None = None
    input: str | None = None
    tools: list[Any] | None = None
    tokens: GivenTokens | None = None


@dataclass(frozen=True, kw_only=True)
class ChoiceItem:
    """One multiple-choice question; `choices[0]` is the true completion."""

    example: Example
    choices: tuple[str, ...]


def example_line(example: Example) -> str:
    """Return `example` as JSON without a line end; fields that are None are omitted."""
    content: dict[str, Any] = {
        "id": example.id,
        "messages": [
            {"role": m.role, "content": m.content}
            | ({"fields": dict(m.fields)} if m.fields else {})
            for m in example.messages
        ],
    }
    if example.tokens is not None:
        content["tokens"] = asdict(example.tokens)
    for name in ("instruction", "input", "tools"):
        value = getattr(example, name)
        if value is not None:
            content[name] = value
    return json.dumps(content, ensure_ascii=False)


def write_examples(path: Path, examples: Sequence[Example]) -> None:
    """Write `examples` to `path`, one per line, atomically."""
    write_text(path, "".join(example_line(example) + "\n" for example in examples))


def load_examples(path: Path, *, may_be_empty: bool = False) -> list[Example]:
    """Return the examples of a file that `write_examples` wrote.

    Raises:
        InputError: the file is missing, is empty although `may_be_empty` is False, or has invalid
            lines. The error lists all problems with their lines.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            Problem(
                message=f"cannot read held-out examples: {error}",
                fix="give a UTF-8 JSONL file, such as a baseline's heldout.jsonl in a sweep",
            )
        ) from None
    examples: list[Example] = []
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for row in parse_jsonl(path, text, fix=_LINE_FORM):
        if isinstance(row, Problem):
            problems.append(row)
            continue
        try:
            example = _parse(row.content)
        except ValueError as error:
            problems.append(Problem(message=describe_fault(error), where=row.where, fix=_LINE_FORM))
            continue
        if example.id in seen:
            message = f"id {example.id!r} is a duplicate of line {seen[example.id]}"
            fix = "give each line a unique id"
            problems.append(Problem(message=message, where=row.where, fix=fix))
        seen.setdefault(example.id, row.number)
        examples.append(example)
    if not (examples or problems or may_be_empty):
        problems.append(
            Problem(message="the file contains no examples", where=str(path), fix=_LINE_FORM)
        )
    if problems:
        raise InputError(problems)
    return examples


def sample_examples(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Return a random sample of at most `count` examples, in their original order.

    Each example's rank depends only on its id and `seed`. So a larger sample contains every smaller
    one, and evaluations with the same `count` score the same examples.
    """
    ranked = sorted(range(len(examples)), key=lambda index: _rank(examples[index].id, seed))
    return [examples[index] for index in sorted(ranked[:count])]


def choice_items(
    examples: Sequence[Example], config: DistractorChoiceConfig, seed: int
) -> list[ChoiceItem]:
    """Return questions with `config.choices` completions each; the first is the true one.

    The distractors are sampled with `seed` from the completions of all `examples`. They differ from
    each other and from the true completion, ignoring letter case and white space. Completions of
    other examples with the same prompt are excluded, because they may also be correct. Examples
    with a blank completion are excluded, too.

    Raises:
        InputError: there are too few different completions.
    """
    completions: dict[str, str] = {}
    correct_forms: dict[object, set[str]] = {}
    candidates = [example for example in examples if example.completion.strip()]
    for example in candidates:
        form = _normalized(example.completion)
        completions.setdefault(form, example.completion)
        correct_forms.setdefault(_prompt_key(example), set()).add(form)

    items: list[ChoiceItem] = []
    fewest = len(completions)
    for example in sample_examples(candidates, config.examples, seed):
        correct = correct_forms[_prompt_key(example)]
        others = [text for form, text in completions.items() if form not in correct]
        fewest = min(fewest, len(others) + 1)
        if fewest >= config.choices:
            generator = random.Random(f"{seed} {example.id}")
            distractors = generator.sample(others, config.choices - 1)
            items.append(ChoiceItem(example=example, choices=(example.completion, *distractors)))
    if fewest < config.choices:
        reduce_choices = f"evals.heldout_choice.choices to {fewest} or " if fewest >= 2 else ""
        raise InputError(
            Problem(
                message=(
                    f"evals.heldout_choice needs {config.choices} distinct completions for each"
                    f" held-out example, got {fewest}"
                ),
                fix=f"set {reduce_choices}evals.heldout_choice to null, or hold out more examples",
            )
        )
    return items


def check_examples(examples: Sequence[Example], config: EvalConfig) -> None:
    """Check that the evaluations in `config` can run on `examples`; benchmarks need no examples.

    Raises:
        InputError: there are no examples, too few different completions, or examples without texts
            for a measure of texts.
    """
    if not config.uses_heldout_examples:
        return
    if not examples:
        raise InputError(
            Problem(
                message="there are no held-out examples",
                fix="set data.heldout_examples to 1 or more",
            )
        )
    of_texts = [f"evals.{name}" for name in _MEASURES_OF_TEXTS if getattr(config, name) is not None]
    if of_texts:
        check_texts(examples, f"{', '.join(of_texts)} (null turns a measure off) need")
    if config.heldout_choice is not None:
        choice_items(examples, config.heldout_choice, config.seed)


def check_training_examples(training: Sequence[Example] | None, config: EvalConfig) -> None:
    """Check that there are training examples if `config` evaluates memorisation.

    Raises:
        InputError: memorisation is configured, but there are no training examples.
    """
    if config.memorisation is not None and not training:
        raise InputError(
            Problem(
                message="evals.memorisation needs the training examples of the model",
                fix="pass the sweep's spec as --config without --data, or set evals.memorisation"
                " to null",
            )
        )


def examples_sha256(examples: Sequence[Example]) -> str:
    """Return the SHA-256, in hexadecimal, of the ids and texts of `examples` in their order."""
    content = "".join(example_line(example) + "\n" for example in examples)
    return hashlib.sha256(content.encode("utf-8")).hexdigest()


_LINE_FORM = 'a line is {"id": ..., "messages": [{"role": ..., "content": ...}, ...]}'


def _parse(content: Any) -> Example:
    """Return the example in a row.

    Raises:
        ValueError: the row is not an example; pydantic's error is a subclass.
    """
    parsed = _ExampleLine.model_validate(content)
    if parsed.tokens is None and (not parsed.messages or parsed.messages[-1].role != "assistant"):
        raise ValueError("the last message must have the role assistant")
    return Example(
        id=parsed.id,
        messages=tuple(
            Message(role=m.role, content=m.content, fields=m.fields) for m in parsed.messages
        ),
        instruction=parsed.instruction,
        input=parsed.input,
        tools=None if parsed.tools is None else tuple(parsed.tools),
        tokens=parsed.tokens,
    )


def _rank(id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {id}".encode()).digest()


def _normalized(completion: str) -> str:
    return "".join(completion.split()).casefold()


def _prompt_key(example: Example) -> object:
    return (example.messages[:-1], example.instruction, example.input)
