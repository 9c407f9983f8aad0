"""The gain of a chosen weight: its interval by literal formulas, its bias in simulated studies."""

from collections.abc import Callable

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from orchestrator.statistics.gains import corrected_gain
from tests.orchestrator.statistics.scores import (
    PLWS,
    SIX,
    analysed,
    columns,
    grid,
    make_rows,
    rows_at,
    w_p,
)


def test_interval_of_a_curve_is_scheffes() -> None:
    rng = np.random.default_rng(0)
    points = {
        (plw, "0"): -6 * (w_p(plw) - 0.6) ** 2 + 0.3 * rng.standard_normal()
        for plw in (*PLWS, 0.002, 0.8)
    }
    plw, _, y = columns(points)
    at = np.array([w_p(each) for each in plw])
    model = sm.OLS(y, np.column_stack([np.ones_like(at), at, at**2])).fit()
    _, slope, curvature = model.params
    top = -slope / (2 * curvature)
    found = corrected_gain(analysed(rows_at(points)))
    expected = model.t_test([0.0, top, top**2])
    half = float((2 * stats.f.ppf(0.95, 2, 6)) ** 0.5 * expected.sd.item())
    assert found.w_p == pytest.approx(top)
    assert found.reference_w_p == 0.0
    assert found.naive == pytest.approx(expected.effect.item())
    assert (found.low, found.high) == pytest.approx((found.naive - half, found.naive + half))


def test_interval_of_means_is_bonferronis() -> None:
    values = np.array([[0.0, 2, 4], [9, 10, 11], [1, 1, 4], [2, 2, 4]])
    points = {
        (plw, f"{plw}-{number}"): float(value)
        for plw, own in zip((0.0, 0.1, 0.5, 1.0), values, strict=True)
        for number, value in enumerate(own)
    }
    analysis = analysed(rows_at(points))
    assert analysis.method == "means"
    found = corrected_gain(analysis)
    # Variances 4, 1, 3, 4 / 3 with 2 df, shrunk towards their mean 7 / 3 with 2 df.
    parts = (np.array([4.0, 1]) * 2 + 2 * 7 / 3) / 4 / 3
    df = parts.sum() ** 2 / (parts**2 / 4).sum()
    half = stats.t.ppf(1 - 0.025 / 3, df) * parts.sum() ** 0.5
    assert (found.w_p, found.naive) == (w_p(0.1), pytest.approx(8))
    assert (found.low, found.high) == pytest.approx((8 - half, 8 + half))


def test_two_weights_with_shared_seeds_have_the_paired_interval() -> None:
    low, high = np.array([1.0, 3, 2, 4]), np.array([2.5, 4, 4, 5])
    found = corrected_gain(analysed(rows_at(grid([low.tolist(), high.tolist()], (0.1, 1.0)))))
    interval = stats.ttest_rel(high, low).confidence_interval(0.95)
    assert (found.reference_w_p, found.w_p) == (w_p(0.1), 1.0)
    assert found.naive == pytest.approx(1.375)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    # The weights differ far more than the noise, so the correction is negligible.
    assert found.value == pytest.approx(1.375, abs=0.02)


@pytest.mark.parametrize("seeds", [1, 3])
def test_gain_of_the_reference_is_0(seeds: int) -> None:
    found = corrected_gain(analysed(make_rows(lambda at: -5 * at, seeds=seeds, trial_sd=0.1)))
    assert (found.value, found.naive, found.low, found.high) == (0, 0, 0, 0)
    assert (found.w_p, found.reference_w_p) == (0, 0)


def simulate_gains(
    curve: Callable[[float], float], seeds: int, num_studies: int
) -> tuple[float, float, float]:
    """Return the mean error of the reported and of the naive gain, and the coverage."""
    reported, naive, covers = [], [], []
    for seed in range(num_studies):
        rows = make_rows(curve, plws=SIX if seeds > 1 else PLWS, seeds=seeds, trial_sd=0.5,
                       seed=seed, groups={"g": (50.0,)})  # fmt: skip
        found = corrected_gain(analysed(rows))
        truth = curve(found.w_p) - curve(found.reference_w_p)
        reported.append(found.value - truth)
        naive.append(found.naive - truth)
        covers.append(found.low <= truth <= found.high)
    return float(np.mean(reported)), float(np.mean(naive)), float(np.mean(covers))


def test_correction_halves_the_bias_for_flat_truths() -> None:
    """Noise of 0.5 points; the Monte Carlo error of the means is 0.03 and 0.04 points."""
    reported, naive, covers = simulate_gains(lambda at: 0.0, 3, 120)
    assert naive > 0.2
    assert reported < 0.14
    assert covers >= 0.95
    reported, naive, covers = simulate_gains(lambda at: 0.0, 1, 120)
    assert naive > 0.3
    assert reported < 0.25
    assert covers >= 0.95


def test_true_gains_have_negligible_bias() -> None:
    hill, _, hill_covers = simulate_gains(lambda at: -8 * (at - 0.6) ** 2, 3, 80)
    step, naive, step_covers = simulate_gains(lambda at: 2.0 if at > 0 else 0.0, 3, 80)
    assert abs(hill) < 0.12
    assert naive > 0.2
    assert abs(step) < 0.15
    assert min(hill_covers, step_covers) >= 0.95


def test_gain_is_deterministic() -> None:
    analysis = analysed(make_rows(lambda at: -8 * (at - 0.6) ** 2))
    assert corrected_gain(analysis) == corrected_gain(analysis)
