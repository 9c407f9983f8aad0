"""Which held-out examples a measure scores, and the file that they are kept in.

Nothing here needs a model: a sweep can check its held-out examples before it trains anything.
"""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from evals.config import EvalConfig, MultipleChoiceConfig
from trainers.data.examples import Example, Message, MessageRole
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import write_text


class _MessageLine(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: MessageRole
    content: str


class _ExampleLine(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    messages: list[_MessageLine]
    instruction: str | None = None
    input: str | None = None


@dataclass(frozen=True, kw_only=True)
class ChoiceItem:
    """One multiple-choice question: `choices[0]` is the true completion."""

    example: Example
    choices: tuple[str, ...]


def example_line(example: Example) -> str:
    """`example` as one line of JSON, without a line end; fields that are None are left out."""
    content: dict[str, Any] = {
        "id": example.id,
        "messages": [{"role": m.role, "content": m.content} for m in example.messages],
    }
    for name in ("instruction", "input"):
        value = getattr(example, name)
        if value is not None:
            content[name] = value
    return json.dumps(content, ensure_ascii=False)


def write_examples(path: Path, examples: Sequence[Example]) -> None:
    """Put `examples` at `path`, one a line, in one step."""
    write_text(path, "".join(example_line(example) + "\n" for example in examples))


def load_examples(path: Path, *, may_be_empty: bool = False) -> list[Example]:
    """The examples of a file that `write_examples` wrote.

    Raises:
        InputError: the file is missing, or empty where it may not be, or lines of it are not
            examples; all of the problems at once, each with its line.
    """
    try:
        # Not str.splitlines, which would also split at a U+2028 inside of a text.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            Problem(
                message=f"cannot read held-out examples: {error}",
                fix="give a UTF-8 JSONL file such as a base's heldout.jsonl in the sweep's folder",
            )
        ) from None
    examples: list[Example] = []
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            example = _parse(line)
        except ValueError as error:
            problems.append(Problem(message=_one_line(error), where=where, fix=_LINE_FORM))
            continue
        if example.id in seen:
            message = f"id {example.id!r} is already that of line {seen[example.id]}"
            problems.append(Problem(message=message, where=where, fix="give each line its own id"))
        seen.setdefault(example.id, number)
        examples.append(example)
    if not (examples or problems or may_be_empty):
        problems.append(Problem(message="no examples in the file", where=str(path), fix=_LINE_FORM))
    if problems:
        raise InputError(problems)
    return examples


def choose(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """`count` of the examples (all, if there are fewer), drawn by `seed`, in their order.

    Each example's rank depends on its id and the seed alone, so a larger `count` adds to the
    items of a smaller one and every measure of one size scores the same items.
    """
    ranked = sorted(range(len(examples)), key=lambda index: _rank(examples[index].id, seed))
    return [examples[index] for index in sorted(ranked[:count])]


def choice_items(
    examples: Sequence[Example], config: MultipleChoiceConfig, seed: int
) -> list[ChoiceItem]:
    """Questions with `config.choices` completions each, of which the first is the true one.

    The distractors are drawn by `seed` from the completions of all `examples`, distinct and
    different from the truth even when letter case and white space are ignored. A completion of
    another example with the same prompt may be right as well, so it is no distractor. Examples
    with a blank completion take no part.

    Raises:
        InputError: there are too few different completions to choose from.
    """
    completions: dict[str, str] = {}
    of_prompt: dict[object, set[str]] = {}
    asked = [example for example in examples if example.completion.strip()]
    for example in asked:
        form = _form(example.completion)
        completions.setdefault(form, example.completion)
        of_prompt.setdefault(_prompt_key(example), set()).add(form)

    items: list[ChoiceItem] = []
    fewest = len(completions)
    for example in choose(asked, config.examples, seed):
        right = of_prompt[_prompt_key(example)]
        others = [text for form, text in completions.items() if form not in right]
        fewest = min(fewest, len(others) + 1)
        if fewest >= config.choices:
            draw = random.Random(f"{seed} {example.id}")
            drawn = draw.sample(others, config.choices - 1)
            items.append(ChoiceItem(example=example, choices=(example.completion, *drawn)))
    if fewest < config.choices:
        fewer = f"evals.multiple_choice.choices to {fewest} or " if fewest >= 2 else ""
        raise InputError(
            Problem(
                message=(
                    f"multiple choice needs {config.choices} distinct completions for each"
                    f" held-out example, got {fewest}"
                ),
                fix=f"set {fewer}evals.multiple_choice to null, or hold out more examples",
            )
        )
    return items


def check_examples(examples: Sequence[Example], config: EvalConfig) -> None:
    """Return if `config`'s measures can be taken on `examples`; no model is needed to know.

    Benchmarks need none.

    Raises:
        InputError: there are no examples, or too few different completions.
    """
    if not config.takes_examples:
        return
    if not examples:
        raise InputError(
            Problem(
                message="there are no held-out examples to score on",
                fix="set data.heldout_examples to 1 or more",
            )
        )
    if config.multiple_choice is not None:
        choice_items(examples, config.multiple_choice, config.seed)


def check_training(training: Sequence[Example] | None, config: EvalConfig) -> None:
    """Return if `config` asks for nothing that takes training examples, or there are some.

    Raises:
        InputError: memorisation is to be measured without them.
    """
    if config.memorisation is not None and not training:
        raise InputError(
            Problem(
                message="evals.memorisation needs the examples that the model was trained on",
                fix="give the sweep's spec as --config without --data, or set evals.memorisation"
                " to null",
            )
        )


def digest(examples: Sequence[Example]) -> str:
    """The SHA-256 over ids and texts of `examples` in their order, in hexadecimal."""
    content = "".join(example_line(example) + "\n" for example in examples)
    return hashlib.sha256(content.encode("utf-8")).hexdigest()


_LINE_FORM = 'a line is {"id": ..., "messages": [{"role": ..., "content": ...}, ...]}'


def _parse(line: str) -> Example:
    """Raises ValueError (of which pydantic's error is one) for what is not an example."""
    parsed = _ExampleLine.model_validate_json(line)
    if not parsed.messages or parsed.messages[-1].role != "assistant":
        raise ValueError("the last message must be the assistant's")
    return Example(
        id=parsed.id,
        messages=tuple(Message(role=m.role, content=m.content) for m in parsed.messages),
        instruction=parsed.instruction,
        input=parsed.input,
    )


def _one_line(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        return ", ".join(
            ": ".join(filter(None, [".".join(map(str, part["loc"])), part["msg"]]))
            for part in error.errors()
        )
    return str(error)


def _rank(id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {id}".encode()).digest()


def _form(completion: str) -> str:
    return "".join(completion.split()).casefold()


def _prompt_key(example: Example) -> object:
    return (example.messages[:-1], example.instruction, example.input)
