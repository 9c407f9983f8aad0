"""Estimate the optimum of the score curve by a local quadratic fit around it.

The estimate only steers the search. `orchestrator.statistics` draws the conclusions of a sweep and
decides whether its search may end early.

Curves are functions of w_p = PLW^0.30103. Published curves are quadratic in w_p on a link scale. On
the scale of a score they are only locally quadratic, so points far from the optimum get less
weight.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Standard deviation of the Gaussian kernel, in w_p. Chosen by regret over six designs of twelve
# points (docs/design-log.md).
BANDWIDTH = 0.3
MIN_POINTS = 4
_ITERATIONS = 4
_NUM_TERMS = 3

Array = NDArray[np.float64]


def estimate_optimum(
    w_p: Sequence[float], scores: Sequence[float], higher_is_better: bool
) -> float:
    """Return the w_p of the best fitted score, within the range of the tried points.

    With fewer than four distinct points, return the best tried w_p.

    Raises:
        ValueError: there are no points, or the numbers of points and scores differ.
    """
    if not w_p or len(w_p) != len(scores):
        raise ValueError(f"every point needs a score, got {len(w_p)} points, {len(scores)} scores")
    x = np.asarray(w_p, dtype=np.float64)
    y = np.asarray(scores, dtype=np.float64) * (1 if higher_is_better else -1)
    if len(np.unique(x)) < MIN_POINTS:
        return float(x[np.argmax(y)])
    low, high = float(x.min()), float(x.max())
    optimum = _maximum(_fit(x, y, np.ones_like(x), 0.0), low, high)
    for _ in range(_ITERATIONS):
        coefficients = _fit(x, y, kernel_weights(x, optimum), optimum)
        optimum += _maximum(coefficients, low - optimum, high - optimum)
    return optimum


def kernel_weights(x: Array, centre: float) -> Array:
    """Return the weight of each point in a fit around `centre`."""
    return np.asarray(np.exp(-0.5 * ((x - centre) / BANDWIDTH) ** 2), dtype=np.float64)


def design_matrix(x: Array, centre: float) -> Array:
    """Return the rows (1, x - centre, (x - centre)^2)."""
    return np.vander(x - centre, _NUM_TERMS, increasing=True)


def _fit(x: Array, y: Array, weight: Array, centre: float) -> Array:
    root = np.sqrt(weight)
    coefficients, *_ = np.linalg.lstsq(
        design_matrix(x, centre) * root[:, None], y * root, rcond=None
    )
    return np.asarray(coefficients)


def _maximum(coefficients: Array, low: float, high: float) -> float:
    """Return the place in [low, high] at which the quadratic is highest."""
    constant, slope, curvature = (float(one) for one in coefficients)
    if curvature < 0:
        return min(max(-slope / (2 * curvature), low), high)
    at_low = constant + low * (slope + low * curvature)
    at_high = constant + high * (slope + high * curvature)
    return high if at_high > at_low else low
