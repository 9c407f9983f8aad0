"""Compute points of a search space: its grid, its corners, and the first points of a search."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any

from orchestrator.spec.search_fields import Range, SearchFields
from orchestrator.spec.setting_fields import PLW, number_kind, violated_rule

# Maximum number of corners to check; the number of combinations is unlimited.
MAX_CORNERS = 256


def initial_points(search: SearchFields) -> list[dict[str, Any]]:
    """Return points_to_evaluate, then PLW 0 and 1 if they are in the searched range of PLW."""
    points = [dict(point) for point in search.points_to_evaluate]
    values = search.space.get(PLW)
    if values is not None and not isinstance(values, list):
        for weight in (0.0, 1.0):
            given = any(point.get(PLW) == weight for point in points)
            if values.low <= weight <= values.high and not given:
                points.append({PLW: weight})
    return points


def grid_points(search: SearchFields) -> Iterator[dict[str, Any]]:
    """Yield the points of a grid except the excluded ones; the first key varies slowest."""
    for point in _combinations(search.space):
        if not any(matches(point, excluded) for excluded in search.exclude):
            yield point


def matches(point: Mapping[str, Any], part: Mapping[str, Any]) -> bool:
    """Return whether a point has all the values in `part`."""
    return all(
        dotted in point and is_same_value(point[dotted], value) for dotted, value in part.items()
    )


def corner_points(search: SearchFields) -> Iterable[dict[str, Any]]:
    """Return all combinations of list values and range ends.

    With more than MAX_CORNERS combinations, return each value only once, combined with the first
    value of every other setting.
    """
    ends = {dotted: _ends(dotted, values) for dotted, values in search.space.items()}
    if prod(len(values) for values in ends.values()) <= MAX_CORNERS:
        return _combinations(ends)
    first = {dotted: values[0] for dotted, values in ends.items()}
    return ({**first, dotted: value} for dotted, values in ends.items() for value in values)


def _ends(dotted: str, values: list[Any] | Range) -> list[Any]:
    if isinstance(values, list):
        return values
    if number_kind(dotted) == "integer":
        return [int(values.low), int(values.high)]
    return [values.low, values.high]


def _combinations(space: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    keys = list(space)
    for values in itertools.product(*(space[key] for key in keys)):
        yield dict(zip(keys, values, strict=True))


def is_value_in(values: list[Any] | Range, dotted: str, value: Any) -> bool:
    """Return whether `value` is in a list, or in a range and valid for the setting."""
    if isinstance(values, list):
        return any(is_same_value(value, one) for one in values)
    return violated_rule(dotted, value) is None and (
        value is not None and values.low <= value <= values.high
    )


def is_same_value(one: Any, other: Any) -> bool:
    """Return whether two values are equal; unlike in Python, true is not equal to 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
