"""The set of weights that may be the best one, for every shape that a curve may have."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.statistics.best_weight import (
    QuadraticFit,
    best_set,
    critical_plw,
    published_curve,
    quadratic_top,
)

# What 6 weights with 3 seeds know of slope and curvature, for a trial sd of 1.
AT = np.repeat([0, 0.25, 0.4, 0.5, 0.66, 1.0], 3)
TERMS = np.vander(AT, 3, increasing=True)
KNOWN = np.linalg.inv(TERMS.T @ TERMS)[1:, 1:]


def fitted(slope: float, curvature: float, sd: float) -> QuadraticFit:
    return QuadraticFit(
        slope=slope, curvature=curvature, covariance=sd**2 * KNOWN, freedom=15, low=0.0, high=1.0
    )


def test_the_published_fit_has_its_best_at_plw_0_242() -> None:
    assert critical_plw() == pytest.approx(0.242, abs=5e-4)
    assert published_curve(0.652) == pytest.approx(0.781)
    assert published_curve(0.0) == pytest.approx(-1.04, abs=0.001)
    # The same from its coefficients, as a fit would give them.
    assert quadratic_top(2 * 4.284 * 0.652, -4.284, 0, 1) == pytest.approx(0.652)


def test_a_clear_hill_gives_one_interval_around_its_top() -> None:
    ((low, high),) = best_set(fitted(1.2, -1.0, 0.02))
    assert 0.5 < low < 0.6 < high < 0.7


def test_the_interval_ends_where_the_slope_is_just_told_from_0() -> None:
    fit = fitted(1.2, -1.0, 0.05)
    ((low, high),) = best_set(fit)
    for end in (low, high):
        slope, error = fit.slope_at(end)
        assert abs(slope) / error == pytest.approx(2.1314, abs=1e-3)


def test_a_curve_that_still_rises_at_1_has_its_best_there_alone() -> None:
    assert best_set(fitted(4.0, -1.0, 0.02)) == ((1.0, 1.0),)


def test_a_curve_that_falls_from_0_has_its_best_there_alone() -> None:
    assert best_set(fitted(-2.0, -1.0, 0.02)) == ((0.0, 0.0),)


def test_a_top_near_an_end_keeps_the_end() -> None:
    ((low, high),) = best_set(fitted(1.9, -1.0, 0.05))
    assert 0.8 < low < 0.95
    assert high == 1.0


def test_a_valley_gives_two_pieces_or_its_higher_end() -> None:
    assert best_set(fitted(-1.0, 1.0, 0.02)) == ((0.0, 0.0), (1.0, 1.0))
    assert best_set(fitted(-0.4, 1.0, 0.02)) == ((1.0, 1.0),)
    assert best_set(fitted(-1.6, 1.0, 0.02)) == ((0.0, 0.0),)


def test_noise_alone_rules_nothing_out() -> None:
    assert best_set(fitted(0.1, -0.1, 1.0)) == ((0.0, 1.0),)


def test_a_rise_of_unclear_shape_rules_out_the_low_end_only() -> None:
    pieces = best_set(fitted(0.5, 0.0, 0.1))
    assert pieces[-1][1] == 1.0
    assert pieces[0][0] > 0


@given(
    slope=st.floats(-5, 5),
    curvature=st.floats(-5, 5),
    sd=st.floats(1e-4, 3),
    low=st.floats(0, 0.4),
)
@settings(max_examples=100, deadline=None)
def test_the_set_holds_its_own_top_and_its_pieces_are_in_order(
    slope: float, curvature: float, sd: float, low: float
) -> None:
    fit = QuadraticFit(slope=slope, curvature=curvature, covariance=sd**2 * KNOWN, freedom=15,
                       low=low, high=1.0)  # fmt: skip
    pieces = best_set(fit)
    assert any(start - 1e-6 <= fit.top <= end + 1e-6 for start, end in pieces)
    flat = [end for piece in pieces for end in piece]
    assert flat == sorted(flat)
    assert low <= flat[0]
    assert flat[-1] <= 1


@pytest.mark.parametrize("vertex", [0.05, 0.6, 0.95])
@pytest.mark.parametrize("bend", [0.3, 2.0])
def test_95_of_100_sets_hold_the_best_however_weak_the_curve(vertex: float, bend: float) -> None:
    rng = np.random.default_rng(7)
    truth = bend * np.array([2 * vertex, -1.0])
    held = 0
    for _ in range(2000):
        found = truth + 0.1 * rng.multivariate_normal(np.zeros(2), KNOWN)
        variance = 0.1**2 * rng.chisquare(15) / 15
        fit = QuadraticFit(slope=found[0], curvature=found[1], covariance=variance * KNOWN,
                           freedom=15, low=0.0, high=1.0)  # fmt: skip
        held += any(start <= vertex <= end for start, end in best_set(fit))
    # The standard error of the share is 0.5%.
    assert 0.935 <= held / 2000 <= 0.965
