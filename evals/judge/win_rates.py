"""From judged pairs to win rates: plain, and with the advantage of length taken out."""

from collections.abc import Sequence

import numpy as np

from evals.results.intervals import (
    NUM_RESAMPLES,
    Estimate,
    Floats,
    estimate_of,
    mean,
    resample_counts,
)

# Two parameters need about ten of the rarer outcome; pairs with fewer say nothing of length.
MIN_PAIRS = 20
_NEWTON_STEPS = 50
_TOLERANCE = 1e-10
# Penalty on the length coefficient alone, where AlpacaEval's is at its weakest (C = 100). One of
# 1.0 moved the rate of 805 pairs by half a point.
_RIDGE = 0.01
METHOD = f"percentile bootstrap over pairs, {NUM_RESAMPLES} resamples, regression refitted in each"


def win_rate(values: Sequence[float], seed: int) -> Estimate:
    """The mean of `values`, 1 for a win, 0.5 for a tie, 0 for a loss: a share in [0, 1].

    Source: AlpacaEval's win_rate is the same mean in percent (tatsu-lab/alpaca_eval,
    metrics/winrate.py: preference minus 1).
    """
    return mean(values, seed)


def length_controlled_win_rate(
    values: Sequence[float],
    candidate_lengths: Sequence[int],
    reference_lengths: Sequence[int],
    seed: int,
) -> Estimate | None:
    """The win rate that a logistic model predicts for pairs of outputs of one length.

    log odds of a win = a + b tanh(d / sd(d)), where d is how much longer the candidate's output
    is, in characters; the rate is 1 / (1 + exp(-a)). b has a weak ridge penalty, so that it stays
    finite where longer always wins. None for fewer than 20 pairs, or where all lengths differ
    alike: then nothing can be told about length.

    Source: Dubois et al. 2024 (arXiv 2404.04475), length-controlled AlpacaEval. Theirs has a
    term for the difficulty of each instruction too, which was fitted to the judge of AlpacaEval 2
    over many models, and an L1 penalty chosen by cross-validation: the numbers differ.
    """
    difference = np.subtract(candidate_lengths, reference_lengths).astype(np.float64)
    if len(values) < MIN_PAIRS or np.ptp(difference) == 0:
        return None
    outcomes = np.asarray(values, dtype=np.float64)
    longer = np.tanh(difference / difference.std(ddof=1))
    n = len(outcomes)
    ones = np.ones((1, n))
    value = float(_fit(outcomes, longer, ones)[0])
    rates = _fit(outcomes, longer, resample_counts(n, seed))
    return estimate_of(value, rates, n, method=METHOD)


def _fit(outcomes_N: Floats, longer_N: Floats, weights_MN: Floats) -> Floats:
    """The rate at equal length (M,) under each row of weights, by Newton's method.

    M samples, N pairs. A sample of one outcome alone has no finite fit: its rate is that outcome.
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
        # Whole steps overshoot where the rates are near 0 or 1.
        size_M = np.maximum(np.abs(step_a_M), np.abs(step_b_M))
        damping_M = np.minimum(1.0, 2.0 / np.maximum(size_M, 1e-12))
        a_M = np.where(one_sided_M, a_M, a_M + damping_M * step_a_M)
        b_M = np.where(one_sided_M, b_M, b_M + damping_M * step_b_M)
        if float(np.max(np.where(one_sided_M, 0.0, size_M), initial=0.0)) < _TOLERANCE:
            break
    fitted_M: Floats = np.where(one_sided_M, mean_M, 1 / (1 + np.exp(-a_M)))
    return fitted_M
