"""Search all points of a grid."""

from collections.abc import Sequence

from orchestrator.search.points import Observation, Point, point_key
from orchestrator.spec.search_config import SearchConfig
from orchestrator.spec.search_points import grid_points


class GridSearch:
    """Searches the points of a grid in order; their numbers are their positions in the grid."""

    def __init__(self, config: SearchConfig, known: Sequence[Observation]) -> None:
        self.ended: str | None = None
        self._points = enumerate(grid_points(config))
        self._known = {point_key(observation.searched) for observation in known}

    def ask(self) -> Point | None:
        """Return the next point without a known outcome."""
        for number, searched in self._points:
            if point_key(searched) not in self._known:
                return Point(number, searched)
        return None

    def tell(self, number: int, observation: Observation) -> None:
        """Do nothing, because a grid does not depend on outcomes."""
