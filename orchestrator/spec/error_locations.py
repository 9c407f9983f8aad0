"""Add places in the spec, or on the command line, to problems that are found after parsing."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.spec.sweep_spec import apply_spec_override
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.settings_file import find_place, find_setting_place, read_yaml

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
        place = _place_of_searched(content, text, spec) or find_setting_place(content, text, spec)
    else:
        named = _path_of(content, problem.where) or tuple(problem.where.split("."))
        place = find_place(content, named, spec)
        if message == "no such file" and not Path(problem.where).is_absolute():
            message = f"{message} in {Path.cwd()}"
        message = f"{problem.where}: {message}"
    if place in (None, str(spec)):
        return problem
    return Problem(message=message, where=place, fix=problem.fix)


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


def _place_of_searched(content: Mapping[str, Any], text: str, spec: Path) -> str | None:
    """Return the place of the first searched setting that `text` names."""
    search = content.get("search")
    space = search.get("space") if isinstance(search, Mapping) else None
    for dotted in re.findall(_DOTTED, text):
        if isinstance(space, Mapping) and dotted in space:
            return find_place(content, ("search", "space", dotted), spec)
    return None
