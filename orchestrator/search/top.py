"""Where a search should look next: the top of a quadratic fitted around that same top.

It only steers the search. What the sweep found, and whether the search may end early, is decided by
`orchestrator.statistics` alone.

Works in w_p = PLW^0.30103, in which the published curves are quadratic on a link scale. On the
scale of a score they are not, far from the top, so points count less the farther they lie from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.foundation.plw_scale import W_P_EXPONENT

# Standard deviation of the weight that a point has by its distance from the top, in w_p. Chosen by
# regret over six designs of twelve points (docs/design-log.md).
BANDWIDTH = 0.3
MIN_POINTS = 4
_ROUNDS = 4
_NUM_TERMS = 3

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SearchTop:
    """The w_p to look around, its PLW, and what located it."""

    w_p: float
    plw: float
    method: str


def search_top(w_p: Sequence[float], scores: Sequence[float], higher_is_better: bool) -> SearchTop:
    """The w_p, between the smallest and the largest tried, at which the fitted score is best.

    Under four different points it is the best one tried.

    Raises:
        ValueError: there are no points, or not as many as scores.
    """
    if not w_p or len(w_p) != len(scores):
        raise ValueError(f"needs a score for each point, got {len(w_p)} and {len(scores)}")
    x = np.asarray(w_p, dtype=np.float64)
    y = np.asarray(scores, dtype=np.float64) * (1 if higher_is_better else -1)
    if len(np.unique(x)) < MIN_POINTS:
        best = float(x[np.argmax(y)])
        return SearchTop(best, _plw(best), "best tried")
    top = fitted_top(x, y)
    return SearchTop(top, _plw(top), "local quadratic")


def fitted_top(x: Array, y: Array) -> float:
    """Where the local quadratic is highest in the range of `x`, which needs three values."""
    low, high = float(x.min()), float(x.max())
    top = float(_tops(_fit(x, y, np.ones_like(x), 0.0)[None], low, high)[0])
    for _ in range(_ROUNDS):
        top += float(_tops(_fit(x, y, weights(x, top), top)[None], low - top, high - top)[0])
    return top


def weights(x: Array, centre: float) -> Array:
    """How much points count in a fit around `centre`."""
    return np.asarray(np.exp(-0.5 * ((x - centre) / BANDWIDTH) ** 2), dtype=np.float64)


def powers(x: Array, centre: float) -> Array:
    """1, x and x^2 about `centre`, a row for each point."""
    return np.vander(x - centre, _NUM_TERMS, increasing=True)


def _fit(x: Array, y: Array, weight: Array, centre: float) -> Array:
    root = np.sqrt(weight)
    coefficients, *_ = np.linalg.lstsq(powers(x, centre) * root[:, None], y * root, rcond=None)
    return np.asarray(coefficients)


def _tops(coefficients: Array, low: float, high: float) -> Array:
    """Where each quadratic, a row of `coefficients`, is highest in [low, high]."""
    constant, slope, curvature = coefficients.T
    at_low = constant + low * (slope + low * curvature)
    at_high = constant + high * (slope + high * curvature)
    better_end = np.where(at_high > at_low, high, low)
    is_concave = curvature < 0
    vertex = -slope / np.where(is_concave, 2 * curvature, 1.0)
    return np.where(is_concave, np.clip(vertex, low, high), better_end)


def _plw(w_p: float) -> float:
    return float(w_p ** (1 / W_P_EXPONENT))
