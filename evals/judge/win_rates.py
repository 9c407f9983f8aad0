"""Win rates of judged pairs: the mean, and the win rate adjusted for length."""

from collections.abc import Sequence

import numpy as np

from evals.results.intervals import (
    NUM_RESAMPLES,
    Estimate,
    Floats,
    bootstrap_counts,
    estimate_from_resamples,
    mean,
)

# The fit has two parameters and needs about ten pairs of the less frequent outcome.
MIN_PAIRS = 20
_NEWTON_STEPS = 50
_TOLERANCE = 1e-10
# Penalty on the length coefficient only, equal to AlpacaEval's weakest penalty (C = 100). With 1.0,
# the win rate on 805 pairs changed by half a percentage point.
_RIDGE = 0.01
METHOD = f"percentile bootstrap over pairs, {NUM_RESAMPLES} resamples, regression refitted in each"


def win_rate(values: Sequence[float], seed: int) -> Estimate:
    """Return the mean of `values` (1: win, 0.5: tie, 0: loss), in [0, 1].

    Source: AlpacaEval's win_rate is the same mean in percent (tatsu-lab/alpaca_eval,
    metrics/winrate.py: preference minus 1).
    """
    return mean(values, seed)


def length_adjusted_win_rate(
    values: Sequence[float],
    candidate_lengths: Sequence[int],
    reference_lengths: Sequence[int],
    seed: int,
) -> Estimate | None:
    """Return the win rate that a logistic model predicts for outputs of equal length.

    log odds of a win = a + b tanh(d / sd(d)), where d is the candidate's length minus the
    reference's, in characters. The rate is 1 / (1 + exp(-a)). A weak ridge penalty keeps b finite
    if longer outputs always win. The result is None for fewer than 20 pairs, or if all d are equal,
    because the effect of length is then unknown.

    Source: Dubois et al. 2024 (arXiv 2404.04475), length-controlled AlpacaEval. Their model also
    has a term for the difficulty of each instruction, fitted over many models for the judge of
    AlpacaEval 2, and an L1 penalty chosen by cross-validation. So the numbers differ.
    """
    difference = np.subtract(candidate_lengths, reference_lengths).astype(np.float64)
    if len(values) < MIN_PAIRS or np.ptp(difference) == 0:
        return None
    outcomes = np.asarray(values, dtype=np.float64)
    longer = np.tanh(difference / difference.std(ddof=1))
    n = len(outcomes)
    ones = np.ones((1, n))
    value = float(_fit(outcomes, longer, ones)[0])
    rates = _fit(outcomes, longer, bootstrap_counts(n, seed))
    return estimate_from_resamples(value, rates, n, method=METHOD)


def _fit(outcomes_N: Floats, longer_N: Floats, weights_MN: Floats) -> Floats:
    """Return the rate at equal length (M,) for each row of weights, by Newton's method.

    M samples, N pairs. A sample with a single outcome has no finite fit; its rate is that outcome.
    """
    mean_M = weights_MN @ outcomes_N / weights_MN.sum(axis=1)
    one_sided_M = (mean_M <= 0) | (mean_M >= 1)
    start_M = np.clip(mean_M, 1e-6, 1 - 1e-6)
    a_M = np.log(start_M / (1 - start_M))
    b_M = np.zeros_like(a_M)
    for _ in range(_NEWTON_STEPS):
        rate_MN = 1 / (1 + np.exp(-(a_M[:, None] + b_M[:, None] * longer_N)))
        residual_MN = weights_MN * (outcomes_N - rate_MN)
        curvature_MN = weights_MN * rate_MN * (1 - rate_MN)
        gradient_a_M = residual_MN.sum(axis=1)
        gradient_b_M = residual_MN @ longer_N - _RIDGE * b_M
        aa_M = curvature_MN.sum(axis=1)
        ab_M = curvature_MN @ longer_N
        bb_M = curvature_MN @ longer_N**2 + _RIDGE
        determinant_M = np.maximum(aa_M * bb_M - ab_M**2, 1e-12)
        step_a_M = (bb_M * gradient_a_M - ab_M * gradient_b_M) / determinant_M
        step_b_M = (aa_M * gradient_b_M - ab_M * gradient_a_M) / determinant_M
        # Full steps overshoot if the rates are near 0 or 1.
        size_M = np.maximum(np.abs(step_a_M), np.abs(step_b_M))
        damping_M = np.minimum(1.0, 2.0 / np.maximum(size_M, 1e-12))
        a_M = np.where(one_sided_M, a_M, a_M + damping_M * step_a_M)
        b_M = np.where(one_sided_M, b_M, b_M + damping_M * step_b_M)
        if float(np.max(np.where(one_sided_M, 0.0, size_M), initial=0.0)) < _TOLERANCE:
            break
    fitted_M: Floats = np.where(one_sided_M, mean_M, 1 / (1 + np.exp(-a_M)))
    return fitted_M
