"""Files of prompts and outputs: those of AlpacaEval and PandaLM, and custom files.

A file is a JSON list or JSONL of {"instruction", "input" (optional), "output", ...}, or has the
format of MT-Bench or Arena-Hard (`evals.judge.suite_records`). Other fields of a record are
ignored.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.judge.suite_records import common_form
from evals.judge.verdicts import Pair
from trainers.data.examples import Example, Message
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import write_json
from trainers.foundation.jsonl import JsonlRow, json_error_message, parse_jsonl

_MAX_PROBLEMS = 20
_FORMAT = 'a record is {"instruction": ..., "input": ... (optional), "output": ...}'
_PROMPT_FORMAT = 'a record is {"instruction": ..., "input": ... (optional)}'


@dataclass(frozen=True, kw_only=True)
class Record:
    """A prompt, and its output if the file has one; `id` is its position in the file.

    `category` is the record's category, or its dataset, if it has one. `turns` are the user's turns
    if there are several; `instruction` and `output` then contain all turns. `question_id` is None
    in files without it.
    """

    id: str
    instruction: str
    input: str
    output: str | None
    category: str | None = None
    turns: tuple[str, ...] = ()
    question_id: str | None = None

    @property
    def task(self) -> str:
        """Return the instruction; if there is an input, also a blank line and the input."""
        return f"{self.instruction}\n\n{self.input}" if self.input.strip() else self.instruction

    def to_example(self, answers: Sequence[str] = ()) -> Example:
        """Return the prompt as a training example of this format with an empty completion.

        Args:
            answers: the model's answers to the first turns; the prompt is then the next turn.
        """
        if self.turns:
            messages: list[Message] = []
            for question, answer in zip(self.turns, (*answers, ""), strict=False):
                messages.append(Message(role="user", content=question))
                messages.append(Message(role="assistant", content=answer))
            return Example(id=self.id, messages=tuple(messages))
        user = Message(role="user", content=self.task)
        return Example(
            id=self.id,
            messages=(user, Message(role="assistant", content="")),
            instruction=self.instruction,
            input=self.input if self.input.strip() else "",
        )


def read_outputs(path: str | Path) -> list[Record]:
    """Return the prompts and outputs in a file.

    Raises:
        InputError: the file is unreadable or empty, or records are invalid; the error gives each
            location.
    """
    return _read(Path(path), needs_output=True)


def read_prompts(path: str | Path) -> list[Record]:
    """Return the prompts in a file; outputs are ignored.

    Raises:
        InputError: see `read_outputs`.
    """
    return _read(Path(path), needs_output=False)


def match_outputs(
    candidates: Sequence[Record], references: Sequence[Record], *, where: str
) -> tuple[list[Pair], int]:
    """Return a pair for each candidate, and the number of references without a candidate.

    Records match if their question ids are equal, or, if a file has none, instruction and input.
    Repeated prompts match in their order.

    Raises:
        InputError: candidates have no reference; `where` names their file.
    """
    has_ids = all(record.question_id is not None for record in (*candidates, *references))
    known = dict(zip(_prompt_keys(references, has_ids), references, strict=True))
    pairs = []
    unmatched = []
    for key, candidate in zip(_prompt_keys(candidates, has_ids), candidates, strict=True):
        reference = known.pop(key, None)
        if reference is None:
            unmatched.append(candidate)
            continue
        assert candidate.output is not None
        assert reference.output is not None
        pairs.append(
            Pair(
                id=candidate.id,
                instruction=candidate.task,
                candidate=candidate.output,
                reference=reference.output,
            )
        )
    if unmatched:
        raise InputError(
            Problem(
                message=(
                    f"{len(unmatched)} of {len(candidates)} outputs have no reference with their"
                    f" instruction and input, the first is {unmatched[0].id}:"
                    f" {unmatched[0].instruction[:80]!r}"
                ),
                where=where,
                fix="use outputs and references of the same prompts",
            )
        )
    return pairs, len(known)


def outputs_name(task_name: str) -> str:
    """Return the name of the file of `write_alpaca_eval_outputs` in a model's outputs folder."""
    return f"{task_name}.alpaca_eval.json"


def write_alpaca_eval_outputs(
    path: Path, prompts: Sequence[Record], outputs: Sequence[str], *, generator: str
) -> None:
    """Write `outputs` as a JSON list that `alpaca_eval evaluate --model_outputs PATH` reads.

    That command has no field for an input, so a prompt's input is part of its instruction.
    """
    content = [
        {"instruction": prompt.task, "output": output, "generator": generator}
        for prompt, output in zip(prompts, outputs, strict=True)
    ]
    write_json(path, content)


def hash_records(records: Sequence[Record]) -> str:
    """Return the SHA-256 of prompts and outputs, in hexadecimal."""
    content = json.dumps([(r.instruction, r.input, r.output) for r in records])
    return hashlib.sha256(content.encode("utf-8")).hexdigest()


def _prompt_keys(records: Sequence[Record], has_ids: bool) -> list[tuple[str, int]]:
    """Return each record's id or prompt, and the number of earlier equal ones.

    An input may be a field of its own, or the last part of the instruction.
    """
    seen: Counter[str] = Counter()
    keys = []
    for record in records:
        prompt = record.question_id if has_ids else record.task.strip()
        assert prompt is not None
        keys.append((prompt, seen[prompt]))
        seen[prompt] += 1
    return keys


def _read(path: Path, *, needs_output: bool) -> list[Record]:
    expected = _FORMAT if needs_output else _PROMPT_FORMAT
    records: list[Record] = []
    problems: list[Problem] = []
    for where, given in read_rows(path, expected=expected):
        row = common_form(given)
        fault = _find_fault(row, needs_output=needs_output)
        if fault is not None:
            problems.append(Problem(message=fault, where=where, fix=expected))
            continue
        records.append(
            Record(
                id=where.removeprefix(f"{path.parent}/"),
                instruction=row.get("instruction") or "",
                input=row.get("input") or "",
                output=row["output"] if needs_output else None,
                category=_category(row),
                turns=tuple(row.get("turns") or ()) if "instruction" in row else (),
                question_id=row.get("question_id"),
            )
        )
    if problems:
        raise InputError(problems[:_MAX_PROBLEMS])
    return records


def read_rows(path: Path, *, expected: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the objects of a JSON list or JSONL file, each with its location.

    Raises:
        InputError: the file is unreadable, invalid or empty; `expected` describes its records.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        problem = Problem(message=f"cannot be read: {reason}", where=str(path), fix=expected)
        raise InputError(problem) from None
    is_list = text.lstrip().startswith("[")
    rows = _parse_list(path, text, expected) if is_list else parse_jsonl(path, text, fix=expected)
    objects: list[tuple[str, dict[str, Any]]] = []
    problems: list[Problem] = []
    for row in rows:
        if isinstance(row, Problem):
            problems.append(row)
        elif isinstance(row.content, dict):
            objects.append((row.where, row.content))
        else:
            fault = "must be a JSON object"
            problems.append(Problem(message=fault, where=row.where, fix=expected))
    if not objects and not problems:
        problems = [Problem(message="no records in the file", where=str(path), fix=expected)]
    if problems:
        raise InputError(problems[:_MAX_PROBLEMS])
    return objects


def _parse_list(path: Path, text: str, expected: str) -> Iterable[JsonlRow | Problem]:
    """Return the items of a JSON list, or one problem if the file is not a JSON list."""
    try:
        items = json.loads(text)
    except ValueError as error:
        return [Problem(message=json_error_message(error), where=str(path), fix=expected)]
    return [JsonlRow(n, f"{path}[{n}]", "", item) for n, item in enumerate(items)]


def _category(row: dict[str, Any]) -> str | None:
    names = (row.get("category"), row.get("dataset"))
    return next((name for name in names if isinstance(name, str)), None)


def _find_fault(row: dict[str, Any], *, needs_output: bool) -> str | None:
    instruction = row.get("instruction")
    input_ = row.get("input") or ""
    if not isinstance(input_, str):
        return f"input must be a text, got {input_!r}"
    # A file of answers may have ids in place of prompts.
    is_answer = needs_output and instruction is None and row.get("question_id") is not None
    # One of PandaLM's 170 prompts has its whole text in the input.
    is_prompt = isinstance(instruction, str) and bool(instruction.strip() or input_.strip())
    if not (is_answer or is_prompt):
        return f"instruction must be a text that is not blank, got {instruction!r}"
    if needs_output and not isinstance(row.get("output"), str):
        return f"output must be a text, got {row.get('output')!r}"
    return None
