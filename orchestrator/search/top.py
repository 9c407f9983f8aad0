"""Where a search should look next: the top of a quadratic fitted around that same top.

It serves the search while it runs. What the sweep found is said by `orchestrator.statistics` alone.

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
_DRAWS = 2000
_NUM_TERMS = 3

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SearchTop:
    """The best w_p by the scores, its PLW, and the 95% interval of the w_p, where one is known."""

    w_p: float
    plw: float
    ci_low: float | None
    ci_high: float | None
    method: str


def search_top(
    w_p: Sequence[float], scores: Sequence[float], higher_is_better: bool, seed: int = 0
) -> SearchTop:
    """The w_p, between the smallest and the largest tried, at which the fitted score is best.

    Under four different points it is the best one tried. The interval is that of the fitted
    coefficients (a sandwich covariance, Student t, `seed` draws them); None where the points
    leave nothing to estimate noise from.

    Raises:
        ValueError: there are no points, or not as many as scores.
    """
    if not w_p or len(w_p) != len(scores):
        raise ValueError(f"needs a score for each point, got {len(w_p)} and {len(scores)}")
    x = np.asarray(w_p, dtype=np.float64)
    y = np.asarray(scores, dtype=np.float64) * (1 if higher_is_better else -1)
    if len(np.unique(x)) < MIN_POINTS:
        best = float(x[np.argmax(y)])
        return SearchTop(best, _plw(best), None, None, "best tried")
    low, high = float(x.min()), float(x.max())
    top = fitted_top(x, y)
    interval = _interval(x, y, top, low, high, np.random.default_rng(seed))
    return SearchTop(top, _plw(top), *interval, "local quadratic")


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


def _interval(
    x: Array, y: Array, top: float, low: float, high: float, rng: np.random.Generator
) -> tuple[float | None, float | None]:
    weight, terms = weights(x, top), powers(x, top)
    weighted = terms * weight[:, None]
    inverse = np.linalg.pinv(terms.T @ weighted)
    hat = terms @ inverse @ weighted.T
    residual = y - hat @ y
    # What is left of the points after the fit, each counted by its weight.
    left = float(weight @ (1 - np.diag(hat)))
    freedom = min(left, len(x) - _NUM_TERMS)
    if freedom <= 0:
        return None, None
    variance = float(weight @ residual**2) / left
    covariance = variance * inverse @ (weighted.T @ weighted) @ inverse
    normal = rng.multivariate_normal(np.zeros(_NUM_TERMS), covariance, _DRAWS, method="eigh")
    spread = np.sqrt(freedom / rng.chisquare(freedom, _DRAWS))
    drawn = _fit(x, y, weight, top) + normal * spread[:, None]
    tops = top + _tops(drawn, low - top, high - top)
    ends = np.quantile(tops, [0.025, 0.975])
    return float(ends[0]), float(ends[1])


def _plw(w_p: float) -> float:
    return float(w_p ** (1 / W_P_EXPONENT))
