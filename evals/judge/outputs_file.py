"""Sets of prompts with outputs: AlpacaEval's and PandaLM's files, and one's own.

A file is a JSON list or JSONL of {"instruction", "input" (or none), "output", ...}; other fields
of a record are left alone.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.judge.verdicts import Pair
from trainers.data.examples import Example, Message
from trainers.foundation.errors import InputError, Problem

_MAX_PROBLEMS = 20
_FORM = 'a record is {"instruction": ..., "input": ... (or none), "output": ...}'
_PROMPT_FORM = 'a record is {"instruction": ..., "input": ... (or none)}'


@dataclass(frozen=True, kw_only=True)
class Record:
    """One prompt, and the output for it if its file has one. `id` is its place in the file."""

    id: str
    instruction: str
    input: str
    output: str | None

    @property
    def task(self) -> str:
        """The instruction and, two lines below, what it is about."""
        return f"{self.instruction}\n\n{self.input}" if self.input.strip() else self.instruction

    def as_example(self) -> Example:
        """The prompt as training data of this form is read, with nothing to complete it."""
        user = Message(role="user", content=self.task)
        return Example(
            id=self.id,
            messages=(user, Message(role="assistant", content="")),
            instruction=self.instruction,
            input=self.input if self.input.strip() else "",
        )


def read_outputs(path: str | Path) -> list[Record]:
    """The records of a file that holds outputs.

    Raises:
        InputError: the file cannot be read or is empty, or records of it are not what they
            should be; each with its place.
    """
    return _read(Path(path), needs_output=True)


def read_prompts(path: str | Path) -> list[Record]:
    """The records of a file whose outputs, if it has any, are of no interest.

    Raises:
        InputError: as `read_outputs`.
    """
    return _read(Path(path), needs_output=False)


def pair_up(
    candidates: Sequence[Record], references: Sequence[Record], *, where: str
) -> tuple[list[Pair], int]:
    """A pair for every candidate, and the number of references that have no candidate.

    Records belong together whose instruction and input are the same; of several such the first
    goes with the first.

    Raises:
        InputError: candidates have no reference; `where` names their file.
    """
    known = dict(zip(_keys(references), references, strict=True))
    pairs = []
    lost = []
    for key, candidate in zip(_keys(candidates), candidates, strict=True):
        reference = known.pop(key, None)
        if reference is None:
            lost.append(candidate)
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
    if lost:
        raise InputError(
            Problem(
                message=(
                    f"{len(lost)} of {len(candidates)} outputs have no reference with their"
                    f" instruction and input, the first is {lost[0].id}:"
                    f" {lost[0].instruction[:80]!r}"
                ),
                where=where,
                fix="give outputs and references for the same prompts",
            )
        )
    return pairs, len(known)


def digest_of(records: Sequence[Record]) -> str:
    """The SHA-256 over prompts and outputs, in hexadecimal."""
    content = json.dumps([(r.instruction, r.input, r.output) for r in records])
    return hashlib.sha256(content.encode("utf-8")).hexdigest()


def _keys(records: Sequence[Record]) -> list[tuple[str, str, int]]:
    seen: Counter[tuple[str, str]] = Counter()
    keys = []
    for record in records:
        prompt = (record.instruction.strip(), record.input.strip())
        keys.append((*prompt, seen[prompt]))
        seen[prompt] += 1
    return keys


def _read(path: Path, *, needs_output: bool) -> list[Record]:
    form = _FORM if needs_output else _PROMPT_FORM
    rows = read_rows(path, form=form)
    records: list[Record] = []
    problems: list[Problem] = []
    for where, row in rows:
        fault = _fault(row, needs_output=needs_output)
        if fault is not None:
            problems.append(Problem(message=fault, where=where, fix=form))
            continue
        records.append(
            Record(
                id=where.removeprefix(f"{path.parent}/"),
                instruction=row["instruction"],
                input=row.get("input") or "",
                output=row["output"] if needs_output else None,
            )
        )
    if problems:
        raise InputError(problems[:_MAX_PROBLEMS])
    return records


def read_rows(path: Path, *, form: str) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a JSON list or JSONL file, each with its place.

    Raises:
        InputError: the file cannot be read, is neither, or is empty; `form` says what it holds.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            Problem(message=f"cannot be read: {reason}", where=str(path), fix=form)
        ) from None
    if text.lstrip().startswith("["):
        rows = _of_list(path, text, form)
    else:
        rows = _of_lines(path, text, form)
    if not rows:
        raise InputError(Problem(message="no records in the file", where=str(path), fix=form))
    problems = [
        Problem(message="must be a JSON object", where=where, fix=form)
        for where, row in rows
        if not isinstance(row, dict)
    ]
    if problems:
        raise InputError(problems[:_MAX_PROBLEMS])
    return rows


def _of_list(path: Path, text: str, form: str) -> list[tuple[str, Any]]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(
            Problem(message=f"not valid JSON: {error}", where=str(path), fix=form)
        ) from None
    return [(f"{path}[{index}]", row) for index, row in enumerate(content)]


def _of_lines(path: Path, text: str, form: str) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    problems: list[Problem] = []
    # Not splitlines, which would also split at a U+2028 inside of a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append((f"{path}:{number}", json.loads(line)))
        except ValueError as error:
            message = f"not valid JSON: {error}"
            problems.append(Problem(message=message, where=f"{path}:{number}", fix=form))
    if problems:
        raise InputError(problems[:_MAX_PROBLEMS])
    return rows


def _fault(row: dict[str, Any], *, needs_output: bool) -> str | None:
    instruction = row.get("instruction")
    about = row.get("input") or ""
    if not isinstance(about, str):
        return f"input must be a text, got {about!r}"
    # One of PandaLM's 170 prompts is all in its input.
    if not isinstance(instruction, str) or not (instruction.strip() or about.strip()):
        return f"instruction must be a text that is not blank, got {instruction!r}"
    if needs_output and not isinstance(row.get("output"), str):
        return f"output must be a text, got {row.get('output')!r}"
    return None
