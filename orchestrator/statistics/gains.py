"""What the chosen weight gains, without the winner's curse.

The top of a fitted curve is where luck and merit are added, so the curve's own height there is too
high. Splitting the items cures the luck of the items alone: the luck of a trial's seed is in both
halves. So the fit itself is split: with z of the coefficients' own covariance, b + g z and
b - z / g are independent, the first chooses, the second reports, and the mean over many z is
reported. Whatever the curve is, that is the expected gain of a weight chosen with a little more
noise than ours.
Source: Leiner, Duan, Wasserman & Ramdas 2023, "Data fission". Deviation: the covariance is an
estimate; benchmarks/analysis.py measures what is left of the bias.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from orchestrator.statistics.best_weight import QuadraticFit

Array = NDArray[np.float64]

# Variance that the choice gets on top of its own: little of it chooses nearly as we do.
_ADDED_VARIANCE = 0.25
_DRAWS = 2000


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The chosen w_p's score less that at `reference_w_p`, on the scale of the fit.

    `naive` is the fitted curve's own difference, which is too high. `low` and `high` bound the true
    one in 95% of studies, however the w_p was chosen.
    """

    reference_w_p: float
    w_p: float
    value: float
    naive: float
    low: float
    high: float


def corrected_gain(fit: QuadraticFit, reference_w_p: float, seed: int = 0) -> Gain:
    """What is gained by the fitted top over `reference_w_p`; `seed` draws the splits.

    The interval is Scheffe's, which holds for all w_p at once and so for the chosen one.
    """
    naive, error = fit.rise(reference_w_p, fit.top)
    limit = float(np.sqrt(2 * special.fdtri(2, fit.freedom, 0.95)))
    return Gain(
        reference_w_p=reference_w_p,
        w_p=fit.top,
        value=_split_gain(fit, reference_w_p, seed),
        naive=naive,
        low=naive - limit * error,
        high=naive + limit * error,
    )


def _split_gain(fit: QuadraticFit, reference_w_p: float, seed: int) -> float:
    rng = np.random.default_rng(seed)
    half = rng.multivariate_normal(np.zeros(2), fit.covariance, _DRAWS // 2, method="eigh")
    # Each draw with its negative: what is linear in them then cancels exactly.
    drawn = np.concatenate([half, -half])
    fitted = np.array([fit.slope, fit.curvature])
    tops = _tops(fitted + drawn * _ADDED_VARIANCE**0.5, fit.low, fit.high)
    reported = fitted - drawn / _ADDED_VARIANCE**0.5
    steps = np.column_stack([tops - reference_w_p, tops**2 - reference_w_p**2])
    return float(np.mean(np.sum(steps * reported, axis=1)))


def _tops(coefficients: Array, low: float, high: float) -> Array:
    slope, curvature = coefficients.T
    better_end = np.where(slope + curvature * (low + high) > 0, high, low)
    is_hill = curvature < 0
    vertex = -slope / np.where(is_hill, 2 * curvature, 1.0)
    return np.where(is_hill, np.clip(vertex, low, high), better_end)
