"""Compare two models on the same items: paired bootstrap and McNemar's test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evals.results.intervals import NUM_RESAMPLES, Floats, bootstrap_counts

# Below this number of discordant items, the chi-squared distribution is inaccurate.
_MIN_DISCORDANT = 25
SMALLEST_P_VALUE = 2 / (NUM_RESAMPLES + 1)
"""The smallest p-value of the paired bootstrap."""


@dataclass(frozen=True, kw_only=True)
class PairedItems:
    """Statistics of the same n items for two models, (n, k) each.

    `score` maps sums of rows (m, k) to values (m,).
    """

    first: Floats
    second: Floats
    score: Callable[[Floats], Floats]


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """The scores of two models on the same items, and the second minus the first.

    `ci_low` and `ci_high` are the 95% percentile interval of the difference over items; None
    without spread. `p_value` is two-sided.
    """

    first: float
    second: float
    difference: float
    ci_low: float | None
    ci_high: float | None
    p_value: float
    num_items: int


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Items that only one of two models has right, and the two-sided p-value of their numbers."""

    num_only_first: int
    num_only_second: int
    p_value: float


def paired_bootstrap(
    parts: Sequence[PairedItems], *, weights: Sequence[float] | None = None, seed: int
) -> PairedDifference:
    """Return the difference of the weighted mean score over `parts`, default: equal weights.

    Both models answer the same resampled items; the items of different parts are independent.

    Source: Koehn 2004, Statistical significance tests for machine translation evaluation. The
    p-value is twice the smaller share of resamples on one side of 0, each with one added resample
    (Davison and Hinkley 1997, section 4.2). Deviation: it is at least 2 / 2^d for d items with a
    difference, the smallest value of Fisher's exact sign test of d items, because resamples of a
    few items with the same sign never cross 0.
    """
    shares = np.ones(len(parts)) if weights is None else np.asarray(weights, dtype=np.float64)
    shares = shares / shares.sum()
    first = second = 0.0
    num_differing = sum(int(np.any(part.first != part.second, axis=1).sum()) for part in parts)
    resampled = np.zeros(NUM_RESAMPLES)
    for number, (part, share) in enumerate(zip(parts, shares.tolist(), strict=True)):
        first += share * float(part.score(part.first.sum(axis=0, keepdims=True))[0])
        second += share * float(part.score(part.second.sum(axis=0, keepdims=True))[0])
        part_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        counts = bootstrap_counts(len(part.first), part_seed)
        resampled += share * (part.score(counts @ part.second) - part.score(counts @ part.first))
    difference = second - first
    # Sums in a different order differ in their last bits; this is not spread.
    tolerance = 1e-9 * max(1.0, abs(first), abs(second))
    has_spread = float(np.ptp(resampled)) > tolerance
    num_below = 1 + int(np.sum(resampled <= tolerance))
    num_above = 1 + int(np.sum(resampled >= -tolerance))
    p_value = SMALLEST_P_VALUE * min(num_below, num_above)
    low, high = np.quantile(resampled, [0.025, 0.975]).tolist()
    return PairedDifference(
        first=first,
        second=second,
        difference=difference,
        ci_low=low if has_spread else None,
        ci_high=high if has_spread else None,
        p_value=min(1.0, max(p_value, 2.0 ** (1 - num_differing))),
        num_items=sum(len(part.first) for part in parts),
    )


def mcnemar_test(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """Return McNemar's test of which of two models is right more often on the same items.

    With fewer than 25 items that only one model has right, the test is exact (binomial); otherwise
    the chi-squared distribution is used, without continuity correction.

    Source: McNemar 1947, Note on the sampling error of the difference between correlated
    proportions.
    """
    from scipy.stats import binomtest, chi2  # This import takes half a second.

    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    discordant = only_first + only_second
    if discordant == 0:
        p_value = 1.0
    elif discordant < _MIN_DISCORDANT:
        p_value = float(binomtest(only_first, discordant).pvalue)
    else:
        p_value = float(chi2.sf((only_first - only_second) ** 2 / discordant, 1))
    return McNemar(num_only_first=only_first, num_only_second=only_second, p_value=p_value)
