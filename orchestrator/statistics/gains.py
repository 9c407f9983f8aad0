"""What the chosen weight gains over a reference, without the winner's curse.

The best of several estimates is where luck and merit add up, so its own value is too high.
Splitting the items cures the luck of the items alone: the luck of a trial's seed is in both
halves. So the estimates are split: with z of their own covariance, b + g z and b - z / g are
independent, the first chooses, the second reports, and the mean over many z is reported. That is
the expected gain of a weight chosen with a little more noise than ours, whatever the curve is.
Source: Leiner, Duan, Wasserman & Ramdas 2023, "Data fission". Deviation: the covariance is an
estimate; benchmarks/analysis.py measures what is left of the bias.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from orchestrator.statistics.estimates import t_quantile
from orchestrator.statistics.weight_analysis import WeightAnalysis

Array = NDArray[np.float64]

CONFIDENCE = 0.95
# Variance that the choice gets on top of its own: little of it chooses nearly as we do.
_ADDED_VARIANCE = 0.25
_DRAWS = 2000


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The optimum's value less that at `reference_w_p`, in the unit of the analysis.

    `naive` is the difference of the estimates, which is too high. `low` and `high` bound the true
    difference in 95% of studies, however the optimum was chosen.
    """

    reference_w_p: float
    w_p: float
    value: float
    naive: float
    low: float
    high: float


def corrected_gain(analysis: WeightAnalysis, seed: int = 0) -> Gain:
    """The gain of the optimum over the lowest weight; `seed` draws the splits.

    The interval holds for all weights at once and so for the chosen one: Scheffe's on a curve,
    Bonferroni's over the tried weights with means.
    """
    reference, best = float(analysis.w_p[0]), analysis.optimum
    if best == reference:
        return Gain(reference_w_p=reference, w_p=best, value=0.0, naive=0.0, low=0.0, high=0.0)
    naive, half = _interval(analysis, reference, best)
    value = _split_gain(analysis, reference, np.random.default_rng(seed))
    return Gain(
        reference_w_p=reference,
        w_p=best,
        value=value,
        naive=naive,
        # The corrected value is of all weights that might have been chosen: near the reference it
        # may lie outside the interval of the one that was.
        low=min(naive - half, value),
        high=max(naive + half, value),
    )


def _interval(analysis: WeightAnalysis, reference: float, best: float) -> tuple[float, float]:
    """The difference of the estimates, and half the width of its interval."""
    if analysis.method == "means":
        assert analysis.pairs is not None
        row = (analysis.w_p == best).astype(float) - (analysis.w_p == reference)
        values, errors, df = analysis.pairs.contrasts(row[None])
        level = 1 - (1 - CONFIDENCE) / 2 / (len(analysis.w_p) - 1)
        return float(values[0]), float(t_quantile(df, level)[0] * errors[0])
    assert analysis.curve is not None
    row = np.array([best - reference, best**2 - reference**2])
    values, errors, df = analysis.curve.contrasts(row[None])
    limit = np.sqrt(2 * special.fdtri(2, df[0], CONFIDENCE))
    return float(values[0]), float(limit * errors[0])


def _split_gain(analysis: WeightAnalysis, reference: float, rng: np.random.Generator) -> float:
    estimates = analysis.estimates
    assert estimates is not None
    zero = np.zeros(len(estimates.values))
    half = rng.multivariate_normal(zero, estimates.covariance, _DRAWS // 2, method="eigh")
    # Each draw with its negative: what is linear in them then cancels exactly.
    drawn = np.concatenate([half, -half])
    chosen = estimates.values + drawn * _ADDED_VARIANCE**0.5
    reported = estimates.values - drawn / _ADDED_VARIANCE**0.5
    if analysis.method == "means":
        best = np.argmax(chosen, axis=1)
        start = int(np.flatnonzero(analysis.w_p == reference)[0])
        return float(np.mean(reported[np.arange(len(best)), best] - reported[:, start]))
    tops = _tops(chosen, analysis.low, analysis.high)
    steps = np.column_stack([tops - reference, tops**2 - reference**2])
    return float(np.mean(np.sum(steps * reported, axis=1)))


def _tops(coefficients: Array, low: float, high: float) -> Array:
    slope, curvature = coefficients.T
    better_end = np.where(slope + curvature * (low + high) > 0, high, low)
    is_hill = curvature < 0
    vertex = -slope / np.where(is_hill, 2 * curvature, 1.0)
    return np.where(is_hill, np.clip(vertex, low, high), better_end)
