"""The Pareto front, compared with brute force, least squares and Student's t."""

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from orchestrator.statistics.conclusions import draw_conclusions
from orchestrator.statistics.conclusions_markdown import format_markdown, front_place
from orchestrator.statistics.pareto import MAX_WEIGHTS, FrontPoint, is_nondominated, pareto_front
from orchestrator.statistics.trial_points import collect_trials
from tests.orchestrator.statistics.scores import PLWS, SIX, grid, make_rows, rows_at, w_p

TWO = {"a": (50.0, 60.0), "b": (12.0,)}


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=7),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_nondominated_weights_equal_brute_force(scores: list[list[int]]) -> None:
    expected = []
    for candidate in scores:
        is_dominated = False
        for other in scores:
            as_good = all(x >= y for x, y in zip(other, candidate, strict=True))
            is_dominated |= as_good and other != candidate
        expected.append(not is_dominated)
    found = is_nondominated(np.array([scores], dtype=float))
    assert found.tolist() == [expected]


def test_points_of_means_equal_least_squares_within_seeds() -> None:
    rows = make_rows({"a": lambda at: 3 * at, "b": lambda at: -2 * at}, plws=SIX, groups=TWO,
                   seed_sd=1.0)  # fmt: skip
    rows = [row for row in rows if (row.plw, row.seed) not in {(0.0, "1"), (0.3, "2")}]
    front = pareto_front(collect_trials(rows), "means")
    assert [point.plw for point in front] == list(SIX)
    keys = list(dict.fromkeys((row.plw, row.seed) for row in rows))
    terms = np.array(
        [[plw == each for each in SIX] + [seed == each for each in "12"] for plw, seed in keys],
        dtype=float,
    )
    for group in TWO:
        y = [100 * np.mean([row.score for row in rows
                            if (row.plw, row.seed, row.group) == (*key, group)])
             for key in keys]  # fmt: skip
        params = sm.OLS(np.array(y), terms).fit().params[:6]
        found = [point.points[group] for point in front]
        assert found == pytest.approx((params - params[0]).tolist(), abs=1e-8)


def test_points_of_a_curve_equal_least_squares() -> None:
    rows = make_rows({"a": lambda at: 3 * at, "b": lambda at: -2 * at**2}, seeds=1, groups=TWO)
    front = pareto_front(collect_trials(rows), "assumed curve")
    at = np.array([w_p(plw) for plw in PLWS])
    for group in TWO:
        y = [100 * np.mean([row.score for row in rows if (row.plw, row.group) == (plw, group)])
             for plw in PLWS]  # fmt: skip
        _, slope, curvature = np.linalg.lstsq(np.vander(at, 3, increasing=True), y, rcond=None)[0]
        found = [point.points[group] for point in front]
        assert found == pytest.approx((slope * at + curvature * at**2).tolist(), abs=1e-8)


def test_probability_with_one_group_equals_students_t() -> None:
    """Two weights with shared seeds: the higher one is on the front with P(t > -t observed)."""
    low, high = np.array([1.0, 3, 2, 4]), np.array([1.9, 2.8, 3.2, 4.4])
    rows = rows_at(grid([low.tolist(), high.tolist()], (0.0, 1.0)))
    first, second = pareto_front(collect_trials(rows), "means")
    expected = stats.t.cdf(stats.ttest_rel(high, low).statistic, 3)
    assert (first.is_on_front, second.is_on_front) == (False, True)
    # 2,000 draws; in each one of the two weights is better.
    assert second.probability == pytest.approx(expected, abs=0.03)
    assert first.probability == pytest.approx(1 - expected, abs=0.03)


def test_groups_that_rise_together_have_one_weight_on_the_front() -> None:
    front = draw_conclusions(make_rows(lambda at: 4 * at, groups=TWO, trial_sd=0.05)).front
    assert [point.plw for point in front if point.is_on_front] == [1.0]
    assert front[-1].probability == 1
    assert front[0].probability == 0


def test_conflicting_groups_have_all_weights_between_their_optima_on_the_front() -> None:
    curves = {"a": lambda at: -9 * (at - 0.2) ** 2, "b": lambda at: -9 * (at - 0.9) ** 2}
    rows = make_rows(curves, groups=TWO, trial_sd=0.02, seed=1)
    front = {point.plw: point for point in draw_conclusions(rows).front}
    assert [plw for plw, point in front.items() if point.is_on_front] == [
        0.01, 0.05, 0.1, 0.25, 0.5,
    ]  # fmt: skip
    assert front[0.1].probability == pytest.approx(1, abs=0.02)
    assert front[0.0].probability == pytest.approx(0, abs=0.02)
    text = format_markdown(draw_conclusions(rows))
    assert "Pareto front over the groups (points over PLW 0):" in text
    assert "| 0 | +0.0 | +0.0 | no, certain (probability 0%) |" in text


def test_front_uses_the_method_of_the_leading_verdict() -> None:
    rows = make_rows(lambda at: 4.0 * (0.2 < at < 0.3), plws=SIX, groups=TWO, trial_sd=0.05)
    found = draw_conclusions(rows)
    assert found.lead.method == "means"
    assert [point.plw for point in found.front if point.is_on_front] == [0.01]


def test_trials_that_lack_a_group_are_left_out() -> None:
    rows = make_rows(lambda at: 4 * at, plws=SIX, groups=TWO)
    partial = [row for row in rows if not (row.seed == "2" and row.group == "b")]
    without = [row for row in rows if row.seed != "2"]
    found = pareto_front(collect_trials(partial), "means")
    expected = pareto_front(collect_trials(without), "means")
    assert [point.points["a"] for point in found] == pytest.approx(
        [point.points["a"] for point in expected]
    )


def test_many_weights_are_thinned_to_forty() -> None:
    plws = [each / 60 for each in range(61)]
    rows = make_rows(lambda at: 4 * at, plws=plws, seeds=1, groups=TWO)
    trials = collect_trials(rows)
    front = pareto_front(trials, "assumed curve")
    assert 10 < len(front) <= MAX_WEIGHTS
    assert (front[0].plw, front[-1].plw) == (0.0, 1.0)
    assert {point.plw for point in front} <= set(plws)
    assert pareto_front(trials, "means") == []


def test_too_few_trials_have_no_front_or_no_probability() -> None:
    assert pareto_front(collect_trials(make_rows(lambda at: at, plws=(0.1,))), "means") == []
    three = make_rows(lambda at: at, plws=(0, 0.1, 1), seeds=1, groups=TWO)
    assert pareto_front(collect_trials(three), "assumed curve") == []
    four = make_rows(lambda at: at, plws=(0, 0.1, 0.5, 1), seeds=1, groups=TWO)
    front = pareto_front(collect_trials(four), "assumed curve")
    assert {point.probability for point in front} == {None}


def test_single_group_has_no_front() -> None:
    assert draw_conclusions(make_rows(lambda at: 4 * at, seed=1)).front == ()


def test_place_on_the_front_has_a_probability() -> None:
    point = FrontPoint(plw=0.1, points={}, is_on_front=True, probability=0.7)
    assert front_place(point) == "yes, uncertain (probability 70%)"
    assert front_place(replace(point, probability=0.99)) == "yes, certain (probability 99%)"
    assert front_place(replace(point, is_on_front=False, probability=None)) == "no"
