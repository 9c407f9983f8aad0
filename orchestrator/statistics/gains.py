"""Compute the gain of the chosen weight over a reference, corrected for the winner's curse.

The best of several estimates is biased upwards. Splitting the items would remove only the noise of
the items, because both halves share the noise of a trial's seed. Therefore the estimates are split:
with z drawn from their covariance, b + g z and b - z / g are independent. The first selects the
weight, the second is reported, and the gain is the mean over many z. It is the expected gain of a
weight that is chosen with slightly more noise than ours, for any curve.

Source: Leiner, Duan, Wasserman & Ramdas 2023, "Data fission". Deviation: the covariance is an
estimate; benchmarks/analysis.py measures the remaining bias.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from orchestrator.statistics.estimates import t_quantile
from orchestrator.statistics.weight_analysis import WeightAnalysis

Array = NDArray[np.float64]

CONFIDENCE = 0.95
# Variance added to the selecting half. It is small, so that the selection is close to that of the
# full estimates.
_ADDED_VARIANCE = 0.25
_DRAWS = 2000


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The value at the optimum minus that at `reference_w_p`, in the unit of the analysis.

    `naive` is the difference of the estimates, which is biased upwards. `low` and `high` contain
    the true difference in 95% of studies, for any rule that selects the optimum.
    """

    reference_w_p: float
    w_p: float
    value: float
    naive: float
    low: float
    high: float


def corrected_gain(analysis: WeightAnalysis, seed: int = 0) -> Gain:
    """Return the gain of the optimum over the lowest weight.

    The interval holds simultaneously for all weights, so also for the selected one. It is Scheffé's
    interval on a curve, and Bonferroni's interval over the tried weights with means.

    Args:
        seed: seed of the random splits.
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
        # The corrected value averages over all weights that might have been selected. Near the
        # reference it may therefore be outside the interval of the selected weight.
        low=min(naive - half, value),
        high=max(naive + half, value),
    )


def _interval(analysis: WeightAnalysis, reference: float, best: float) -> tuple[float, float]:
    """Return the difference of the estimates, and the half width of its interval."""
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
    # Antithetic draws: terms that are linear in the draws cancel exactly.
    drawn = np.concatenate([half, -half])
    chosen = estimates.values + drawn * _ADDED_VARIANCE**0.5
    reported = estimates.values - drawn / _ADDED_VARIANCE**0.5
    if analysis.method == "means":
        best = np.argmax(chosen, axis=1)
        start = int(np.flatnonzero(analysis.w_p == reference)[0])
        return float(np.mean(reported[np.arange(len(best)), best] - reported[:, start]))
    optima = _vertices(chosen, analysis.low, analysis.high)
    steps = np.column_stack([optima - reference, optima**2 - reference**2])
    return float(np.mean(np.sum(steps * reported, axis=1)))


def _vertices(coefficients: Array, low: float, high: float) -> Array:
    """Return the w_p in [low, high] at which each quadratic is highest."""
    slope, curvature = coefficients.T
    better_end = np.where(slope + curvature * (low + high) > 0, high, low)
    is_hill = curvature < 0
    vertex = -slope / np.where(is_hill, 2 * curvature, 1.0)
    return np.where(is_hill, np.clip(vertex, low, high), better_end)
