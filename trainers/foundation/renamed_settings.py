"""Renamed settings: the old names are rejected in a sweep spec and mapped in records."""

import copy
from collections.abc import Mapping
from typing import Any

# Old dotted path in a sweep spec -> current dotted path.
RENAMED_SETTINGS = {
    "optimizer.distance_penalty": "optimizer.l2_sp",
    "search.first_points": "search.points_to_evaluate",
    "search.learn_from": "search.warm_start",
    "evals.judge.reasks": "evals.judge.parse_retries",
    "evals.multiple_choice": "evals.heldout_choice",
    "evals.short_generation": "evals.heldout_exact_match",
    "evals.long_generation": "evals.heldout_chrf",
    "evals.pandalm": "evals.pandalm_prompts",
}


def current_name(dotted: str) -> str | None:
    """Return the current dotted path of the setting `dotted` if it was renamed, else None.

    `dotted` may start at a section of a spec: `judge.x` finds the entry of `evals.judge.x`.
    """
    for old, new in RENAMED_SETTINGS.items():
        section = old.removesuffix(dotted)
        if old == dotted or ("." in dotted and old != section and section.endswith(".")):
            return new.removeprefix(section)
    return None


def with_current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of recorded settings in which renamed settings have their current names."""
    return _renamed(settings, RENAMED_SETTINGS)


def _renamed(settings: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    renamed = copy.deepcopy(dict(settings))
    for source, target in names.items():
        *parents, key = source.split(".")
        section: Any = renamed
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if not isinstance(section, dict) or key not in section:
            continue
        value = section.pop(key)
        *parents, key = target.split(".")
        section = renamed
        for parent in parents:
            section = section.setdefault(parent, {})
        section[key] = value
    return renamed
