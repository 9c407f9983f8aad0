"""Paired comparisons: simulated items with a known difference, and other implementations."""

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest, chi2, norm

from evals.results.paired import McNemar, PairedItems, mcnemar_test, paired_bootstrap


def means(first: np.ndarray, second: np.ndarray) -> PairedItems:
    """Return items whose score is the mean of their values."""
    ones = np.ones(len(first))
    return PairedItems(
        first=np.stack([first, ones], axis=1),
        second=np.stack([second, ones], axis=1),
        score=lambda totals: totals[:, 0] / totals[:, 1],
    )


def simulated(
    generator: np.random.Generator, num_items: int, only_first: float, only_second: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return which items two models have right, with these shares that only one has right."""
    uniform = generator.random(num_items)
    both = 0.4
    first = uniform < both + only_first
    second = (uniform < both) | (
        (uniform >= both + only_first) & (uniform < both + only_first + only_second)
    )
    return first.astype(float), second.astype(float)


def rejections(num_studies: int, only_first: float, only_second: float) -> tuple[int, int]:
    """Return how many simulated studies of 300 items find a difference at 5%, by each test."""
    generator = np.random.default_rng(20240601)
    bootstrap = mcnemar = 0
    for study in range(num_studies):
        first, second = simulated(generator, 300, only_first, only_second)
        bootstrap += paired_bootstrap([means(first, second)], seed=study).p_value < 0.05
        mcnemar += mcnemar_test((first == 1).tolist(), (second == 1).tolist()).p_value < 0.05
    return bootstrap, mcnemar


def mcnemar_power(num_items: int, only_first: float, only_second: float) -> float:
    """Return the exact power of the chi-squared test at 5%, summed over all possible outcomes.

    Outcomes with fewer than 25 discordant items are neglected.
    """
    power = 0.0
    for discordant in range(25, num_items + 1):
        first = np.arange(discordant + 1)
        rejects = (2 * first - discordant) ** 2 / discordant > chi2.ppf(0.95, 1)
        given = binom.pmf(first, discordant, only_first / (only_first + only_second))
        power += binom.pmf(discordant, num_items, only_first + only_second) * given[rejects].sum()
    return power


@pytest.mark.full
def test_equal_models_differ_in_5_percent_of_studies() -> None:
    for count in rejections(1000, 0.15, 0.15):
        interval = binomtest(count, 1000).proportion_ci(confidence_level=0.99)
        assert interval.low < 0.05 < interval.high, (count, interval)


@pytest.mark.full
def test_a_known_difference_is_found_as_often_as_its_power() -> None:
    only_first, only_second, num_items = 0.11, 0.19, 300
    power = mcnemar_power(num_items, only_first, only_second)
    # Connor 1987, Sample size for testing differences in proportions for the paired-sample design:
    # a normal approximation.
    delta, discordant = only_second - only_first, only_first + only_second
    z = (delta * math.sqrt(num_items) - norm.ppf(0.975) * math.sqrt(discordant)) / math.sqrt(
        discordant - delta**2
    )
    assert power == pytest.approx(float(norm.cdf(z)), abs=0.02)
    for count in rejections(1000, only_first, only_second):
        interval = binomtest(count, 1000).proportion_ci(confidence_level=0.99)
        assert interval.low < power < interval.high, (count, interval)


def test_the_interval_agrees_with_scipys_paired_bootstrap() -> None:
    from scipy.stats import bootstrap

    generator = np.random.default_rng(3)
    first = generator.normal(size=400)
    second = first + generator.normal(0.3, 1.0, size=400)
    found = paired_bootstrap([means(first, second)], seed=0)
    expected = bootstrap(
        (first, second), lambda a, b, axis: b.mean(axis=axis) - a.mean(axis=axis), paired=True,
        method="percentile", n_resamples=9999, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert found.difference == pytest.approx((second - first).mean())
    assert (found.ci_low, found.ci_high) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_parts_are_weighted_and_have_independent_items() -> None:
    generator = np.random.default_rng(4)
    parts = []
    for shift, num_items in ((0.0, 100), (1.0, 400)):
        first = generator.normal(size=num_items)
        parts.append(means(first, first + generator.normal(shift, 1.0, size=num_items)))
    found = paired_bootstrap(parts, weights=[3, 1], seed=0)
    each = [paired_bootstrap([part], seed=0) for part in parts]
    assert found.difference == pytest.approx(0.75 * each[0].difference + 0.25 * each[1].difference)
    assert found.num_items == 500
    assert found.ci_low is not None
    assert found.ci_high is not None
    width = 2 * 1.96 * math.hypot(0.75 / math.sqrt(100), 0.25 / math.sqrt(400))
    assert found.ci_high - found.ci_low == pytest.approx(width, rel=0.15)


def test_equal_answers_have_no_difference_and_no_interval() -> None:
    values = np.array([0.0, 1.0, 1.0])
    found = paired_bootstrap([means(values, values)], seed=0)
    assert (found.difference, found.ci_low, found.ci_high, found.p_value) == (0.0, None, None, 1.0)
    assert mcnemar_test([True, False], [True, False]) == McNemar(
        num_only_first=0, num_only_second=0, p_value=1.0
    )


@pytest.mark.parametrize(("num_items", "p_value"), [(1, 1.0), (4, 0.125), (6, 0.03125)])
def test_a_few_items_with_the_same_sign_prove_little(num_items: int, p_value: float) -> None:
    first = np.zeros(num_items)
    found = paired_bootstrap([means(first, first + np.arange(1, num_items + 1))], seed=0)
    assert found.p_value == p_value


def test_mcnemar_is_exact_for_few_discordant_items() -> None:
    # 2 * (1 + 6) / 2^6 for 1 of 6.
    first = [True] * 5 + [False] + [True] * 10
    second = [False] * 5 + [True] + [True] * 10
    found = mcnemar_test(first, second)
    assert (found.num_only_first, found.num_only_second) == (5, 1)
    assert found.p_value == pytest.approx(2 * 7 / 64)
    # Chi-squared (20 - 10)^2 / 30 with one degree of freedom.
    found = mcnemar_test([True] * 20 + [False] * 10, [False] * 20 + [True] * 10)
    assert found.p_value == pytest.approx(0.0679, abs=1e-4)
