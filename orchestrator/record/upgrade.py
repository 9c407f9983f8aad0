"""Convert records that another release wrote to the format of this release."""

import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evals.results.scores import RENAMED_SCORES
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import read_json
from trainers.foundation.renamed_settings import RENAMED_SETTINGS, with_current_names

# Increased if a change makes sweep.json or files of its folder unreadable to older releases.
RECORD_VERSION = 1


def current_trial(content: Any) -> Any:
    """Return the content of a trial.json with renamed settings under their current names."""
    if not isinstance(content, dict):
        return content
    changed = dict(content)
    if isinstance(content.get("settings"), dict):
        changed["settings"] = with_current_names(content["settings"])
    if isinstance(content.get("searched"), dict):
        changed["searched"] = _current_keys(content["searched"])
    return changed


def current_sweep(content: Any) -> Any:
    """Return the content of a sweep.json with renamed settings under their current names."""
    if not isinstance(content, dict) or not isinstance(content.get("spec"), dict):
        return content
    spec = with_current_names(content["spec"])
    search = spec.get("search")
    if isinstance(search, dict):
        for name, value in search.items():
            if isinstance(value, dict):
                search[name] = _current_keys(value)
            elif isinstance(value, list):
                search[name] = [_current_keys(v) if isinstance(v, dict) else v for v in value]
        if isinstance(search.get("objectives"), list):
            search["objectives"] = [RENAMED_SCORES.get(str(v), v) for v in search["objectives"]]
    return {**content, "spec": spec}


def check_version(content: Any, path: Path) -> None:
    """Check that this release can read the sweep.json at `path`.

    Raises:
        InputError: the record's version is newer than RECORD_VERSION.
    """
    found = content.get("version", 1) if isinstance(content, dict) else 1
    if isinstance(found, int) and found > RECORD_VERSION:
        writer = _writer(content)
        raise InputError(
            Problem(
                message=f"written by a newer plw-sweep{f' {writer}' if writer else ''}: the record "
                f"has version {found}, this release reads up to {RECORD_VERSION}",
                where=str(path),
                fix=f"upgrade plw-sweep{f' to {writer}' if writer else ''}",
            )
        )


def newer_writer(sweep_json: Path) -> str | None:
    """Return the version of plw-sweep that wrote a sweep, if it is newer than this one."""
    try:
        writer = _writer(read_json(sweep_json))
    except (OSError, ValueError):
        return None
    return writer if writer and _numbers(writer) > _numbers(version("plw-sweep")) else None


def _current_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    return {RENAMED_SETTINGS.get(name, name): value for name, value in values.items()}


def _writer(sweep: Any) -> str | None:
    try:
        found = sweep["environment"]["packages"]["plw-sweep"]
    except (KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]
