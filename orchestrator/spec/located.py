"""Where a spec sets what was found to be wrong only after it was built."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainers.foundation.errors import InputError, Problem
from trainers.foundation.settings_file import apply_override, line_of, line_of_named, read_yaml

_DOTTED = r"\w+(?:\.\w+)+"


def with_lines(error: InputError, spec: Path, overrides: Sequence[str] = ()) -> InputError:
    """The same problems, with the line of the setting that each one names, or that names its file.

    Only the model, the data and the machine tell of them, such as a folder that is not there.
    """
    content = read_yaml(spec)
    for override in overrides:
        apply_override(content, override)
    return InputError([_with_line(problem, content, spec) for problem in error.problems])


def _with_line(problem: Problem, content: Mapping[str, Any], spec: Path) -> Problem:
    message = problem.message
    if problem.where is None:
        text = f"{message} {problem.fix}"
        line = _line_of_searched(content, text) or line_of_named(content, text)
    else:
        named = _path_of(content, problem.where) or tuple(problem.where.split("."))
        line = line_of(content, named)
        message = f"{problem.where}: {message}"
    if line is None:
        return problem
    return Problem(message=message, where=f"{spec}:{line}", fix=problem.fix)


def _path_of(content: Any, value: str) -> tuple[str | int, ...] | None:
    """Where `value` first stands in the spec."""
    entries: Iterable[tuple[str | int, Any]] = ()
    if isinstance(content, Mapping):
        entries = content.items()
    elif isinstance(content, list):
        entries = enumerate(content)
    for key, entry in entries:
        if entry == value:
            return (key,)
        below = _path_of(entry, value)
        if below is not None:
            return (key, *below)
    return None


def _line_of_searched(content: Mapping[str, Any], text: str) -> int | None:
    """The line of the first setting named in `text` of which several values are searched."""
    search = content.get("search")
    space = search.get("space") if isinstance(search, Mapping) else None
    for dotted in re.findall(_DOTTED, text):
        if isinstance(space, Mapping) and dotted in space:
            return line_of(content, ("search", "space", dotted))
    return None
