"""Where a quadratic in w_p is highest: a point, and the set of w_p that the data do not rule out.

Nothing is assumed of the shape. A w_p is ruled out by a test of what would have to hold if it were
the best: inside the range a slope of 0 there (Fieller's set), at an end a curve that rises to it.
So the set holds the best w_p in 95% of studies whatever the curve is, and may be one interval, a
single end, two pieces or the whole range.

Source: Fieller 1954; von Luxburg & Franz 2009, "A geometric approach to confidence sets for
ratios". Deviation: the set is clipped to the tried range and its ends are tested on their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import special

from orchestrator.statistics.table import plw_of

Array = NDArray[np.float64]

# Source: arXiv 2401.13586, the fit for short completions; on a link scale, as it gives -1.04 at 0.
PUBLISHED_CURVATURE = -4.284
PUBLISHED_BEST_W_P = 0.652
PUBLISHED_TOP = 0.781
# A valley as clear as this has its best at an end; it may cost 0.05% of the coverage.
_CLEAR_VALLEY = 0.9995
_TOUCHING = 1e-9


@dataclass(frozen=True, kw_only=True)
class QuadraticFit:
    """slope w + curvature w^2 over the tried w_p in [low, high], with what is known of both.

    `covariance` (2, 2) is that of (slope, curvature), with `freedom` degrees of freedom.
    """

    slope: float
    curvature: float
    covariance: Array
    freedom: float
    low: float
    high: float

    def rise(self, start: float, end: float) -> tuple[float, float]:
        """The curve at `end` less that at `start`, and its standard error."""
        contrast = np.array([end - start, end**2 - start**2])
        value = float(contrast @ np.array([self.slope, self.curvature]))
        return value, float(contrast @ self.covariance @ contrast) ** 0.5

    def slope_at(self, w_p: float) -> tuple[float, float]:
        """The slope and its standard error."""
        contrast = np.array([1.0, 2 * w_p])
        value = float(contrast @ np.array([self.slope, self.curvature]))
        return value, float(contrast @ self.covariance @ contrast) ** 0.5

    def quantile(self, level: float) -> float:
        """Of Student's t with the fit's freedom."""
        return float(special.stdtrit(self.freedom, level))

    @property
    def top(self) -> float:
        """The w_p at which the fitted curve is highest in the tried range."""
        return quadratic_top(self.slope, self.curvature, self.low, self.high)


def quadratic_top(slope: float, curvature: float, low: float, high: float) -> float:
    """Where slope w + curvature w^2 is highest in [low, high]."""
    if curvature < 0:
        return float(min(max(-slope / (2 * curvature), low), high))
    return high if slope + curvature * (low + high) > 0 else low


def critical_plw(best_w_p: float = PUBLISHED_BEST_W_P) -> float:
    """The PLW at a curve's top; the published fit's, -4.284 (w_p - 0.652)^2 + 0.781, has 0.242."""
    return plw_of(best_w_p)


def published_curve(w_p: float) -> float:
    """The paper's fit for short completions, on its link scale."""
    return PUBLISHED_TOP + PUBLISHED_CURVATURE * (w_p - PUBLISHED_BEST_W_P) ** 2


def best_set(fit: QuadraticFit, confidence: float = 0.95) -> tuple[tuple[float, float], ...]:
    """The w_p in [low, high] that may be the best one, as pieces in order; none overlap.

    An end alone is a piece of width 0. The set is never empty.
    """
    limit = fit.quantile((1 + confidence) / 2)
    pieces = [] if _is_clear_valley(fit) else _where_slope_may_be_zero(fit, limit)
    if _low_may_be_best(fit, limit):
        pieces.append((fit.low, fit.low))
    if _high_may_be_best(fit, limit):
        pieces.append((fit.high, fit.high))
    # A curve that every test rules out cannot be; rounding can, at an estimate without noise.
    return _joined(pieces or [(fit.top, fit.top)])


def _is_clear_valley(fit: QuadraticFit) -> bool:
    return bool(fit.curvature > fit.quantile(_CLEAR_VALLEY) * fit.covariance[1, 1] ** 0.5)


def _high_may_be_best(fit: QuadraticFit, limit: float) -> bool:
    """A hill that rises up to `high`, or a valley whose end there is the higher one.

    Each is ruled out by either of two one-sided tests at 2.5%, so that it costs 5% at most.
    """
    slope, slope_error = fit.slope_at(fit.high)
    if _may_be_hill(fit, limit) and slope >= -limit * slope_error:
        return True
    rise, rise_error = fit.rise(fit.low, fit.high)
    return _may_be_valley(fit, limit) and rise >= -limit * rise_error


def _low_may_be_best(fit: QuadraticFit, limit: float) -> bool:
    slope, slope_error = fit.slope_at(fit.low)
    if _may_be_hill(fit, limit) and slope <= limit * slope_error:
        return True
    rise, rise_error = fit.rise(fit.low, fit.high)
    return _may_be_valley(fit, limit) and rise <= limit * rise_error


def _may_be_hill(fit: QuadraticFit, limit: float) -> bool:
    return bool(fit.curvature <= limit * fit.covariance[1, 1] ** 0.5)


def _may_be_valley(fit: QuadraticFit, limit: float) -> bool:
    return bool(fit.curvature >= -limit * fit.covariance[1, 1] ** 0.5)


def _where_slope_may_be_zero(fit: QuadraticFit, limit: float) -> list[tuple[float, float]]:
    """Fieller's set in [low, high]: slope(w)^2 <= limit^2 var slope(w), a quadratic in w."""
    covariance, square = fit.covariance, limit**2
    terms = (
        fit.slope**2 - square * covariance[0, 0],
        4 * fit.slope * fit.curvature - 4 * square * covariance[0, 1],
        4 * fit.curvature**2 - 4 * square * covariance[1, 1],
    )
    constant, linear, square_term = terms
    root = np.sqrt(max(linear**2 - 4 * square_term * constant, 0.0))
    # The form that loses no digits where the curve is nearly a line.
    half = -0.5 * (linear + np.copysign(root, linear))
    real = sorted(
        {half / square_term if square_term else fit.low, constant / half if half else fit.low}
    )
    ends = [fit.low, *(root for root in real if fit.low < root < fit.high), fit.high]
    return [
        (start, end)
        for start, end in pairwise(ends)
        if np.polyval(terms[::-1], (start + end) / 2) <= 0
    ]


def _joined(pieces: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    joined: list[tuple[float, float]] = []
    for start, end in sorted(pieces):
        if joined and start <= joined[-1][1] + _TOUCHING:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)
