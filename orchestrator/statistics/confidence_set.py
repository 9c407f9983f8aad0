"""Compute the 95% confidence set of the best weight.

The set contains all weights to which no other weight is significantly superior. On a curve, w_p
stays in the set unless the curve rises significantly from it to another w_p of the tried range.
With means, a tried weight stays unless another weight's mean is significantly higher. The set may
be one interval, a single weight, several pieces or the whole range.

Source: Fieller 1954 (the test of a slope of 0, which the curve's rule contains); Hsu 1984, multiple
comparisons with the best, with Bonferroni's bound for the largest of the differences.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.statistics.estimates import Estimates, t_quantile
from orchestrator.statistics.weight_analysis import WeightAnalysis

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Pieces = tuple[tuple[float, float], ...]

CONFIDENCE = 0.95
_NUM_PLACES = 1001
# A curve that fits may still be slightly wrong. It therefore never excludes a tried weight whose
# mean is within this many standard errors of the best mean.
_NEAR_BEST = 1.5


def confidence_set(analysis: WeightAnalysis) -> Pieces:
    """Return the w_p that may be best (95%), as ascending intervals; never empty.

    With means, an interval is a run of neighbouring tried weights.
    """
    if analysis.method == "means":
        assert analysis.pairs is not None
        return _runs(analysis.w_p, may_be_best(analysis.pairs))
    assert analysis.curve is not None
    places = np.unique(
        np.concatenate([np.linspace(analysis.low, analysis.high, _NUM_PLACES), analysis.w_p])
    )
    is_kept = _kept_by_curve(analysis.curve, places)
    is_kept |= places == places[np.abs(places - analysis.optimum).argmin()]
    pieces = _runs(places, is_kept)
    return _with_near_best(pieces, analysis) if analysis.pairs is not None else pieces


def may_be_best(means: Estimates, confidence: float = CONFIDENCE) -> Bools:
    """Return (K): True if no other mean is significantly higher."""
    num = len(means.values)
    first, second = (each.ravel() for each in np.meshgrid(range(num), range(num), indexing="ij"))
    rows = np.eye(num)[second] - np.eye(num)[first]
    values, errors, df = means.contrasts(rows)
    limit = t_quantile(df, 1 - (1 - confidence) / max(num - 1, 1))
    is_better = (values > limit * errors) & (first != second)
    return np.asarray(~is_better.reshape(num, num).any(axis=1))


def significantly_worse(means: Estimates) -> Bools:
    """Return (K): True if some other mean is higher, significantly over all weights jointly.

    `may_be_best` leaves out each best weight in at most 5% of cases, so it leaves out one of
    several equally good ones more often. Here all are kept together in 95%, given that the test of
    any difference is significant: the number of best weights is then at most K - 1, and each
    differs by chance only from the K - 2 others.
    """
    num = len(means.values)
    return ~may_be_best(means, 1 - (1 - CONFIDENCE) / max(num - 2, 1))


def _kept_by_curve(curve: Estimates, places: Array) -> Bools:
    """Return a mask of the places from which the curve rises significantly to no other place.

    From w to v the curve rises by (v - w) (slope + curvature (v + w)), so the test depends only on
    v + w.
    """
    low, high = places[0], places[-1]
    sums = np.linspace(2 * low, 2 * high, 2 * _NUM_PLACES - 1)
    values, errors, df = curve.contrasts(np.column_stack([np.ones_like(sums), sums]))
    limit = t_quantile(df, (1 + CONFIDENCE) / 2) * errors
    rises = np.cumsum(values > limit).astype(np.int64)
    falls = np.cumsum(values < -limit).astype(np.int64)
    gap = sums[1] - sums[0] if len(sums) > 1 else 1.0

    def count(total: Ints, start: Array, end: Array) -> Ints:
        first = np.clip(np.ceil((start - sums[0]) / gap - 1e-6).astype(int), 0, len(sums) - 1)
        last = np.clip(np.floor((end - sums[0]) / gap + 1e-6).astype(int), 0, len(sums) - 1)
        before = np.where(first > 0, total[np.maximum(first - 1, 0)], 0)
        return np.asarray(np.where(last >= first, total[last] - before, 0))

    has_better_above = (count(rises, 2 * places, places + high) > 0) & (places < high)
    has_better_below = (count(falls, places + low, 2 * places) > 0) & (places > low)
    return np.asarray(~(has_better_above | has_better_below))


def _with_near_best(pieces: Pieces, analysis: WeightAnalysis) -> Pieces:
    """Extend the set to the farthest tried weights whose means are near the best mean."""
    assert analysis.pairs is not None
    best = int(np.argmax(analysis.pairs.values))
    rows = np.eye(len(analysis.w_p))[best] - np.eye(len(analysis.w_p))
    values, errors, _ = analysis.pairs.contrasts(rows)
    near = analysis.w_p[values <= _NEAR_BEST * errors]
    if len(pieces) == 1:
        return ((min(pieces[0][0], near.min()), max(pieces[0][1], near.max())),)
    alone = [(at, at) for at in near if not any(low <= at <= high for low, high in pieces)]
    return tuple(sorted([*pieces, *alone]))


def _runs(places: Array, is_kept: Bools) -> Pieces:
    """Return the runs of adjacent places that are kept."""
    kept = np.flatnonzero(is_kept)
    runs: Sequence[Array] = np.split(kept, np.flatnonzero(np.diff(kept) > 1) + 1)
    return tuple((float(places[run[0]]), float(places[run[-1]])) for run in runs)
