"""Read JSON Lines files and report every problem with its file and line."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from trainers.foundation.errors import InputError, Problem

T = TypeVar("T")


class JsonlRow(NamedTuple):
    """One line of a file; `where` is `path:number`, with line numbers from 1."""

    number: int
    where: str
    line: str
    content: Any


def parse_jsonl(path: Path, text: str, *, fix: str | None = None) -> Iterator[JsonlRow | Problem]:
    """Yield the value or the problem of every line of `text`; see `parse_lines`."""
    # str.splitlines() also splits at U+2028 and others, which JSON allows inside a string.
    return parse_lines(path, text.split("\n"), fix=fix)


def parse_lines(
    path: Path, lines: Iterable[str], *, fix: str | None = None
) -> Iterator[JsonlRow | Problem]:
    """Yield the value or the problem of every line that is not blank.

    Args:
        path: the source of the lines, for the messages.
        fix: advice for a line that is not valid JSON.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            yield JsonlRow(number, where, line, load_json(line.removesuffix("\n")))
        except ValueError as error:
            is_syntax = isinstance(error, json.JSONDecodeError)
            yield Problem(
                message=json_error_message(error), where=where, fix=fix if is_syntax else None
            )


def read_jsonl(path: Path, parse_row: Callable[[Any], T], *, fix: str | None = None) -> list[T]:
    """Return the rows of a file, each converted by `parse_row`.

    Args:
        parse_row: a type or function such as `dict` or `Model.model_validate`; it rejects a row
            with ValueError or TypeError.
        fix: advice for an invalid line.

    Raises:
        InputError: the file has invalid lines; the error lists all of them.
    """
    rows: list[T] = []
    problems: list[Problem] = []
    for row in parse_jsonl(path, path.read_text(encoding="utf-8"), fix=fix):
        if isinstance(row, Problem):
            problems.append(row)
            continue
        try:
            rows.append(parse_row(row.content))
        except (ValueError, TypeError) as error:
            problems.append(Problem(message=str(error), where=row.where, fix=fix))
    if problems:
        raise InputError(problems)
    return rows


def load_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is not valid, nested too deeply, or an object has two values of the same
            name, of which `json.loads` keeps only the last.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the name {json.dumps(twice)} twice")
    return found


def json_error_message(error: Exception) -> str:
    """Return the reason why json.loads rejected a text."""
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg} at column {error.colno}"
    return f"not valid JSON: {error}"
