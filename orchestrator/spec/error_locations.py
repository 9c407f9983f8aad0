"""Add line numbers of the spec to problems that are found after parsing."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.spec.sweep_spec import apply_spec_override
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.settings_file import find_line, find_setting_line, read_yaml

_DOTTED = r"\w+(?:\.\w+)+"


def add_line_numbers(error: InputError, spec: Path, overrides: Sequence[str] = ()) -> InputError:
    """Return the same problems, each with the line of the setting or file that it names.

    These problems depend on the model, the data or the machine, for example a missing folder.
    """
    content = read_yaml(spec)
    for override in overrides:
        apply_spec_override(content, override)
    return InputError([_with_line(problem, content, spec) for problem in error.problems])


def _with_line(problem: Problem, content: Mapping[str, Any], spec: Path) -> Problem:
    message = problem.message
    if problem.where is None:
        text = f"{message} {problem.fix}"
        line = _line_of_searched(content, text) or find_setting_line(content, text)
    else:
        named = _path_of(content, problem.where) or tuple(problem.where.split("."))
        line = find_line(content, named)
        message = f"{problem.where}: {message}"
    if line is None:
        return problem
    return Problem(message=message, where=f"{spec}:{line}", fix=problem.fix)


def _path_of(content: Any, value: str) -> tuple[str | int, ...] | None:
    """Return the key path of the first occurrence of `value` in the spec."""
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
    """Return the line of the first searched setting that `text` names."""
    search = content.get("search")
    space = search.get("space") if isinstance(search, Mapping) else None
    for dotted in re.findall(_DOTTED, text):
        if isinstance(space, Mapping) and dotted in space:
            return find_line(content, ("search", "space", dotted))
    return None
