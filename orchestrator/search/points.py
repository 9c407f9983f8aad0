"""Which points of the space are tried, one after the other: the search itself, without trials."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from orchestrator.spec.search_config import SearchConfig
from orchestrator.spec.search_rules import grid_points


@dataclass(frozen=True)
class Point:
    """Values to try by dotted path, without the seed: all seeds of a point belong together."""

    number: int
    searched: dict[str, Any]


@dataclass(frozen=True)
class Observation:
    """How a point came out.

    `values` are its scores, means over the seeds, in the order of `search.objectives`; None for
    a point that was stopped early or failed before it had them. `by_seed` are those of its trials,
    where they are known.
    """

    searched: dict[str, Any]
    state: Literal["done", "stopped", "failed"]
    values: tuple[float, ...] | None
    by_seed: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


class Search(Protocol):
    """Asks for points and learns how they came out.

    `ended` says why there was no further one before all that the spec asks for had been asked.
    """

    ended: str | None

    def ask(self) -> Point | None:
        """The next point; None when there is none."""

    def tell(self, number: int, observation: Observation) -> None:
        """How the point `number` came out."""


def make_search(
    config: SearchConfig,
    known: Sequence[Observation] = (),
    num_done: int = 0,
    unfinished: Sequence[Mapping[str, Any]] = (),
) -> Search:
    """The search that a spec asks for.

    Args:
        known: points that came out earlier, in this sweep or in others on the same model and
            data. They inform tpe and gp, and no method asks for them again.
        num_done: how many of `search.points` earlier runs of this sweep have used up; numbers go on
            from there. For a grid it means nothing.
        unfinished: points that an earlier run began and that are to go on. They are asked for
            first, and count as points. A grid asks for them in its own order.
    """
    if config.method == "grid":
        return GridSearch(config, known)
    from orchestrator.search.sampled import SampledSearch

    return SampledSearch(config, known, num_done, unfinished)


def point_key(searched: Mapping[str, Any]) -> str:
    """A text that is equal for equal points, whatever the order of their settings."""
    # JSON tells true from 1, which Python does not; 1 and 1.0 are one setting's same value.
    plain = {
        key: float(value) if isinstance(value, int) and not isinstance(value, bool) else value
        for key, value in searched.items()
    }
    return json.dumps(plain, sort_keys=True, default=str)


class GridSearch:
    """Every point of the grid in order; its number is its place in it."""

    def __init__(self, config: SearchConfig, known: Sequence[Observation]) -> None:
        self.ended: str | None = None
        self._points = enumerate(grid_points(config))
        self._known = {point_key(observation.searched) for observation in known}

    def ask(self) -> Point | None:
        """The next point that is not known."""
        for number, searched in self._points:
            if point_key(searched) not in self._known:
                return Point(number, searched)
        return None

    def tell(self, number: int, observation: Observation) -> None:
        """Nothing: a grid does not learn."""
