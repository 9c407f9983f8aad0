"""Estimates and their intervals."""

import math

import pytest

from evals.results.intervals import mean, proportion, ratio


@pytest.mark.parametrize(("right", "count"), [(0, 5), (5, 5), (3, 7), (1, 1), (40, 64)])
def test_the_interval_of_a_proportion_is_wilsons(right: int, count: int) -> None:
    estimate = proportion([True] * right + [False] * (count - right))
    p, z = right / count, 1.959963984540054
    centre = (p + z**2 / (2 * count)) / (1 + z**2 / count)
    half_width = z / (1 + z**2 / count) * math.sqrt(p * (1 - p) / count + (z / (2 * count)) ** 2)
    assert estimate.value == p
    assert estimate.ci_low == pytest.approx(centre - half_width, abs=1e-12)
    assert estimate.ci_high == pytest.approx(centre + half_width, abs=1e-12)
    assert estimate.num_items == count
    assert estimate.interval_method == "Wilson score"


def test_the_standard_error_of_a_proportion() -> None:
    # Sample variance of 3 ones and 1 zero is 0.25; over 4 items, the root is 0.25.
    assert proportion([True, True, True, False]).standard_error == 0.25


@pytest.mark.parametrize("outcomes", [[True], [False], [True] * 9, [False] * 9])
def test_items_without_spread_have_no_standard_error(outcomes: list[bool]) -> None:
    estimate = proportion(outcomes)
    assert estimate.standard_error is None
    assert estimate.ci_high is not None
    assert estimate.ci_low is not None
    assert estimate.ci_high - estimate.ci_low > 0.2


def test_a_ratio_divides_the_sums() -> None:
    estimate = ratio([10.0, 2.0, 0.0], [1, 3, 0], seed=0)
    assert estimate is not None
    assert estimate.value == 3.0
    # An example with a count of 0 is not an item.
    assert estimate.num_items == 2
    # Resamples: the first item twice (10), one of each (3), the second twice (2/3).
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx((2 / 3, 10))


def test_a_ratio_of_nothing_is_undefined() -> None:
    assert ratio([0.0, 0.0], [0, 0], seed=0) is None


@pytest.mark.parametrize(("sums", "counts"), [([6.0], [3]), ([2.0, 4.0, 6.0], [1, 2, 3])])
def test_a_ratio_without_spread_has_no_interval(sums: list[float], counts: list[int]) -> None:
    estimate = ratio(sums, counts, seed=0)
    assert estimate is not None
    assert estimate.value == 2.0
    assert (estimate.standard_error, estimate.ci_low, estimate.ci_high) == (None, None, None)


def test_the_bootstrap_agrees_with_theory_and_depends_on_its_seed() -> None:
    # Equal counts make the ratio a mean, whose standard error is known: 1 / sqrt(400).
    sums = [-1.0, 1.0] * 200
    estimate = ratio(sums, [1] * 400, seed=0)
    assert estimate is not None
    assert estimate.standard_error == pytest.approx(0.05, rel=0.1)
    assert estimate.ci_low == pytest.approx(-0.098, abs=0.02)
    assert estimate.ci_high == pytest.approx(0.098, abs=0.02)
    assert ratio(sums, [1] * 400, seed=0) == estimate
    assert ratio(sums, [1] * 400, seed=1) != estimate


def test_a_mean_has_its_standard_error() -> None:
    estimate = mean([-1.0, 1.0] * 200, seed=0)
    assert (estimate.value, estimate.num_items) == (0, 400)
    assert estimate.standard_error == pytest.approx(0.05, rel=0.1)
    assert mean([3.0], seed=0).standard_error is None
