"""Define points, their outcomes, and the interface of a search."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Point:
    """Searched values by dotted path. The seed is not included: one point covers all seeds."""

    number: int
    searched: dict[str, Any]


@dataclass(frozen=True)
class Observation:
    """The outcome of a point.

    Attributes:
        state: `diverged`: a loss was not finite; `invalid`: the values violate a rule; `failed`:
            for a reason that says nothing about the point, such as a crash.
        values: scores in the order of `search.objectives`, as means over the seeds; None if the
            point was stopped early or failed before it was scored.
        by_seed: the scores of its trials by seed, if known.
    """

    searched: dict[str, Any]
    state: Literal["done", "stopped", "diverged", "invalid", "failed"]
    values: tuple[float, ...] | None
    by_seed: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


class Search(Protocol):
    """A search method with an ask-and-tell interface.

    Attributes:
        ended: reason why the search ended before all points of the spec; None if it did not.
    """

    ended: str | None

    def ask(self) -> Point | None:
        """Return the next point; None if there are no more points."""

    def tell(self, number: int, observation: Observation) -> None:
        """Report the outcome of point `number`."""


def point_key(searched: Mapping[str, Any]) -> str:
    """Return a string that is equal for equal points, regardless of the order of settings."""
    # 1 and 1.0 are the same value of a setting. 1 and true are not, although they are equal in
    # Python.
    normalized = {
        key: float(value) if isinstance(value, int) and not isinstance(value, bool) else value
        for key, value in searched.items()
    }
    return json.dumps(normalized, sort_keys=True, default=str)
