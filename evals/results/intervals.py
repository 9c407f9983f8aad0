"""Estimate scores and their uncertainty from the outcomes of the items."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evals.config import Group
from evals.results.scores import Score

NUM_RESAMPLES = 1000
BOOTSTRAP = f"percentile bootstrap over items, {NUM_RESAMPLES} resamples"
WILSON = "Wilson score"

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its standard error and 95% interval over items.

    Items without spread (one item, or all equal) contain no information about the error.
    `standard_error` and a bootstrap interval are then None. Wilson's interval remains valid.
    """

    value: float
    standard_error: float | None
    ci_low: float | None
    ci_high: float | None
    num_items: int
    interval_method: str

    def to_score(
        self, name: str, *, group: Group | None, higher_is_better: bool, unit: str
    ) -> Score:
        """Return this estimate as a score."""
        return Score(
            name=name,
            group=group,
            value=self.value,
            standard_error=self.standard_error,
            ci_low=self.ci_low,
            ci_high=self.ci_high,
            num_items=self.num_items,
            higher_is_better=higher_is_better,
            unit=unit,
            interval_method=self.interval_method,
        )


def proportion(outcomes: Sequence[bool]) -> Estimate:
    """Return the proportion of true outcomes, in [0, 1], with Wilson's 95% interval.

    The standard error is the sample standard deviation divided by the square root of n.

    Source: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    from scipy.stats import binomtest  # This import takes half a second.

    n = len(outcomes)
    p = sum(outcomes) / n
    interval = binomtest(sum(outcomes), n).proportion_ci(method="wilson")
    return Estimate(
        value=p,
        standard_error=math.sqrt(p * (1 - p) / (n - 1)) if 0 < p < 1 else None,
        ci_low=float(interval.low),
        ci_high=float(interval.high),
        num_items=n,
        interval_method=WILSON,
    )


def ratio(sums: Sequence[float], counts: Sequence[int], seed: int) -> Estimate | None:
    """Return the sum of `sums` divided by the sum of `counts`; None if the latter is 0.

    Whole items are resampled, because the tokens of one example depend on each other. Items with a
    count of 0 are excluded.
    """
    counted = [index for index, count in enumerate(counts) if count > 0]
    if not counted:
        return None
    pairs = np.array([(sums[index], counts[index]) for index in counted], dtype=np.float64)
    return bootstrap(pairs, lambda totals: totals[:, 0] / totals[:, 1], seed)


def mean(values: Sequence[float], seed: int) -> Estimate:
    """Return the mean of `values` with its interval over items."""
    estimate = ratio(values, [1] * len(values), seed)
    assert estimate is not None
    return estimate


def bootstrap(items: Floats, score: Callable[[Floats], Floats], seed: int) -> Estimate:
    """Return the `score` of the summed `items` (n, k), with an interval from resampled rows.

    `score` maps sums (m, k) to values (m,).
    """
    value = float(score(items.sum(axis=0, keepdims=True))[0])
    return estimate_from_resamples(value, bootstrap_sums(items, score, seed), len(items))


def bootstrap_aggregate(
    values: Sequence[Any], aggregate: Callable[[list[Any]], float], seed: int
) -> Estimate:
    """Return the `aggregate` of `values`, with an interval from resamples, for any function."""
    value = float(aggregate(list(values)))
    generator = np.random.default_rng(seed)
    n = len(values)
    resampled = []
    for _ in range(NUM_RESAMPLES):
        drawn = generator.integers(n, size=n)
        resampled.append(float(aggregate([values[index] for index in drawn])))
    return estimate_from_resamples(value, np.array(resampled), n)


def bootstrap_sums(items: Floats, score: Callable[[Floats], Floats], seed: int) -> Floats:
    """Return the `score` of the summed rows of `NUM_RESAMPLES` resamples of `items` (n, k).

    `score` maps sums (m, k) to values (m,).
    """
    return score(bootstrap_counts(len(items), seed) @ items)


def bootstrap_counts(num_items: int, seed: int) -> Floats:
    """Return how often each of `NUM_RESAMPLES` resamples draws each item: (m, n).

    Counts instead of indices turn sums into one matrix product.
    """
    probabilities = np.full(num_items, 1 / num_items)
    draws = np.random.default_rng(seed).multinomial(num_items, probabilities, size=NUM_RESAMPLES)
    return draws.astype(np.float64)


def estimate_from_resamples(
    value: float, resampled_values: Floats, num_items: int, *, method: str = BOOTSTRAP
) -> Estimate:
    """Return `value` with the standard error and percentile interval of its resamples."""
    # Sums in a different order differ in their last bits; this is not spread.
    has_spread = float(np.ptp(resampled_values)) > 1e-9 * max(1.0, abs(value))
    low, high = np.quantile(resampled_values, [0.025, 0.975]).tolist()
    return Estimate(
        value=value,
        standard_error=float(resampled_values.std(ddof=1)) if has_spread else None,
        ci_low=low if has_spread else None,
        ci_high=high if has_spread else None,
        num_items=num_items,
        interval_method=method,
    )
