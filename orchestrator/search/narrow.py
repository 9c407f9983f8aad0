"""The next w_p for knowing best where the top of the curve is, rather than for a high score."""

from collections.abc import Sequence

import numpy as np

from orchestrator.search.top import Array, powers, weights

NUM_CANDIDATES = 41
# Closer points are one experiment twice, and no point is run twice.
MIN_DISTANCE = 0.002
_RIDGE = 1e-6


def narrowing_w_p(taken: Sequence[float], top: float, low: float, high: float) -> float:
    """The w_p in [low, high] that adds most to what the fit around `top` knows of its slope there.

    The top of a fitted quadratic is where its slope is zero, so the variance of the slope is, up
    to the curvature, that of the top. Points on the top itself tell nothing of it, those on its
    flanks most: a c-optimal design for the top that `orchestrator.search.top` fits.
    Expected improvement crowds at the top instead, and was no better than random draws.

    Args:
        taken: every w_p that was asked for, whether it has come out or not.
    """
    tried = np.asarray(taken, dtype=np.float64)
    candidates = np.linspace(low, high, NUM_CANDIDATES)
    variances = [_slope_variance(np.append(tried, one), top) for one in candidates]
    return _apart(float(candidates[int(np.argmin(variances))]), tried, low, high)


def _slope_variance(x: Array, top: float) -> float:
    """The variance of the local quadratic's slope at `top`, in units of that of a score."""
    terms = powers(x, top)
    weighted = terms * weights(x, top)[:, None]
    inverse = np.linalg.inv(terms.T @ weighted + _RIDGE * np.eye(terms.shape[1]))
    return float((inverse @ (weighted.T @ weighted) @ inverse)[1, 1])


def _apart(w_p: float, tried: Array, low: float, high: float) -> float:
    """The closest w_p that keeps its distance from those that were tried."""
    for step in range(int((high - low) / MIN_DISTANCE) + 1):
        for near in (w_p - step * MIN_DISTANCE, w_p + step * MIN_DISTANCE):
            if low <= near <= high and np.all(np.abs(tried - near) > MIN_DISTANCE * 0.9):
                return float(near)
    return w_p
