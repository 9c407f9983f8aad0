"""C-optimal design: choose the next w_p that locates the optimum of the score curve best."""

from collections.abc import Sequence

import numpy as np

from orchestrator.search.local_quadratic import Array, design_matrix, kernel_weights

NUM_CANDIDATES = 41
# Minimum distance between points. A closer point would repeat an experiment.
MIN_DISTANCE = 0.002
_RIDGE = 1e-6


def c_optimal_w_p(tried: Sequence[float], optimum: float, low: float, high: float) -> float:
    """Return the w_p in [low, high] that minimizes the variance of the fitted slope at `optimum`.

    The optimum of a fitted quadratic is where its slope is zero. The variance of the optimum is
    therefore that of the slope, up to a factor from the curvature. Points at the optimum carry no
    information about it; points on its flanks carry the most. The fit is that of
    `orchestrator.search.local_quadratic`.

    Expected improvement clusters points at the optimum instead. It was no better than random
    search.

    Args:
        tried: every w_p so far, with or without a score.
        optimum: the current estimate.
    """
    x = np.asarray(tried, dtype=np.float64)
    candidates = np.linspace(low, high, NUM_CANDIDATES)
    variances = [_slope_variance(np.append(x, one), optimum) for one in candidates]
    return _nearest_untried(float(candidates[int(np.argmin(variances))]), x, low, high)


def _slope_variance(x: Array, optimum: float) -> float:
    """Return the variance of the local quadratic's slope, relative to the noise variance."""
    terms = design_matrix(x, optimum)
    weighted = terms * kernel_weights(x, optimum)[:, None]
    inverse = np.linalg.inv(terms.T @ weighted + _RIDGE * np.eye(terms.shape[1]))
    return float((inverse @ (weighted.T @ weighted) @ inverse)[1, 1])


def _nearest_untried(w_p: float, tried: Array, low: float, high: float) -> float:
    """Return the nearest w_p that is at least MIN_DISTANCE away from all tried ones."""
    for step in range(int((high - low) / MIN_DISTANCE) + 1):
        for near in (w_p - step * MIN_DISTANCE, w_p + step * MIN_DISTANCE):
            if low <= near <= high and np.all(np.abs(tried - near) > MIN_DISTANCE * 0.9):
                return float(near)
    return w_p
