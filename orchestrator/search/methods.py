"""Create a search from the name of its method."""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.search.grid_search import GridSearch
from orchestrator.search.points import Observation, Search
from orchestrator.spec.search_config import SearchConfig


def make_search(
    config: SearchConfig,
    known: Sequence[Observation] = (),
    num_done: int = 0,
    unfinished: Sequence[Mapping[str, Any]] = (),
) -> Search:
    """Return a search with the method of a spec.

    Args:
        known: points with an earlier outcome, in this sweep or in others on the same model and
            data. No method returns them again; tpe and gp learn from them.
        num_done: number of points of `search.points` that earlier runs of this sweep have used.
            Numbering continues from there. A grid ignores it.
        unfinished: points to resume from an earlier run. They come first and count towards
            `search.points`. A grid keeps its own order.
    """
    if config.method == "grid":
        return GridSearch(config, known)
    from orchestrator.search.optuna_search import SampledSearch

    return SampledSearch(config, known, num_done, unfinished)
