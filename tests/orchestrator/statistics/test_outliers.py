"""Outliers against statsmodels, on designs with seeds as blocks."""

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm

from orchestrator.statistics.conclusions import draw_conclusions
from orchestrator.statistics.conclusions_markdown import headline_conditions
from orchestrator.statistics.outliers import Outlier, find_outliers
from tests.orchestrator.statistics.scores import (
    PLWS,
    SIX,
    columns,
    fitted,
    grid,
    make_rows,
    rows_at,
    w_p,
)

Points = dict[tuple[float, str], float]


def simulate_points(*, seeds: int = 4, seed: int = 0, missing: int = 0) -> Points:
    rng = np.random.default_rng(seed)
    values = np.array([2 * w_p(plw) for plw in SIX])[:, None] + 2 * rng.standard_normal(seeds)
    points = grid((values + 0.5 * rng.standard_normal((6, seeds))).tolist(), SIX)
    for key in list(points)[1 : 1 + missing]:
        del points[key]
    return points


def by_statsmodels(points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Externally studentised residuals and Bonferroni's p-values, with dummies."""
    plw, seeds, y = columns(points)
    of_weight = (plw[:, None] == np.unique(plw)).astype(float)
    of_seed = (np.array(seeds)[:, None] == np.unique(seeds)[1:]).astype(float)
    model = sm.OLS(y, np.hstack([of_weight, of_seed])).fit()
    table = np.asarray(model.outlier_test(method="bonf"))
    return table[:, 0], table[:, 2]


def detect(points: Points) -> list[Outlier]:
    trials, effects = fitted(rows_at(points))
    assert effects.is_blocked
    return find_outliers(effects, trials, "g")


@pytest.mark.parametrize("missing", [0, 2])
@pytest.mark.parametrize("size", [0.0, 2.5, 3.5, -6.0, -20.0])
def test_outliers_and_their_p_values_are_those_of_statsmodels(size: float, missing: int) -> None:
    points = simulate_points(missing=missing)
    points[0.1, "2"] += size
    _, p_values = by_statsmodels(points)
    expected = {key: p for key, p in zip(points, p_values, strict=True) if p < 0.01}
    found = {(each.plw, each.seed): each.p_value for each in detect(points)}
    assert found == pytest.approx(expected, rel=1e-6)
    assert (set(found) == {(0.1, "2")}) == (abs(size) > 2)


def test_deviation_is_from_the_prediction_of_the_other_trials() -> None:
    points = simulate_points()
    points[0.1, "2"] -= 15
    (outlier,) = detect(points)
    plw, seeds, y = columns(points)
    others = np.array([key != (0.1, "2") for key in points])
    terms = np.hstack(
        [plw[:, None] == np.unique(plw), np.array(seeds)[:, None] == np.unique(seeds)[1:]]
    ).astype(float)
    model = sm.OLS(y[others], terms[others]).fit()
    expected = y[~others] - model.predict(terms[~others])
    assert outlier.deviation == pytest.approx(expected.item())
    assert (outlier.group, outlier.trial, outlier.plw, outlier.seed) == ("g", "", 0.1, "2")


def test_clean_trials_are_rarely_called_outliers() -> None:
    """At 1% over the trials of a study, 3 of 300 are expected; 8 or more occur in 1 of 80 cases."""
    assert sum(bool(detect(simulate_points(seeds=3, seed=seed))) for seed in range(300)) < 9


def test_too_few_trials_have_no_outliers() -> None:
    points = grid([[0.0, 1], [1, 2], [2, 30]], (0.0, 0.1, 1.0))
    trials, effects = fitted(rows_at(points))
    assert effects.total_df == 2
    assert find_outliers(effects, trials, "g") == []


def test_outlier_is_listed_with_the_verdict_without_it() -> None:
    rows = make_rows(lambda at: -8 * (at - 0.6) ** 2, seed_sd=1.0, trial_sd=0.3, seed=1)
    broken = [
        replace(row, score=row.score - 0.25) if (row.plw, row.seed) == (0.25, "1") else row
        for row in rows
    ]
    found = draw_conclusions(broken)
    (outlier,) = found.outliers
    assert (outlier.plw, outlier.seed) == (0.25, "1")
    assert outlier.deviation == pytest.approx(-25, abs=1)
    without = draw_conclusions([row for row in broken if (row.plw, row.seed) != (0.25, "1")])
    assert found.without_outliers == without.verdicts
    assert found.lead.kind == "cannot say"
    assert found.without_outliers[0].kind == "best"
    *_, sentence = headline_conditions(found)
    assert sentence.startswith("Outlier: the trial at PLW 0.25, seed 1 is 2")
    assert "points below the prediction from the other trials for multiple choice" in sentence
    assert " Without it: best PLW 0.1" in sentence


def test_table_without_outliers_has_no_second_verdict() -> None:
    found = draw_conclusions(make_rows(lambda at: -8 * (at - 0.6) ** 2))
    assert (found.outliers, found.without_outliers) == ((), ())


def test_masked_second_outlier_is_found() -> None:
    points = simulate_points(seeds=4)
    points[0.1, "2"] -= 40
    points[0.3, "1"] -= 5
    assert [(each.plw, each.seed) for each in detect(points)] == [(0.1, "2")]
    found = draw_conclusions(rows_at(points))
    assert [(each.plw, each.seed) for each in found.outliers] == [(0.1, "2"), (0.3, "1")]
    assert found.without_outliers[0].num_trials == 22


def test_one_weight_without_replicates_deviates_from_the_assumed_curve() -> None:
    points = {
        (plw, "0"): 2 * w_p(plw) + 0.1 * (-1) ** number
        for number, plw in enumerate((*PLWS, 0.002, 0.8))
    }
    points[0.05, "0"] -= 9
    (outlier,) = draw_conclusions(rows_at(points)).outliers
    assert (outlier.plw, round(outlier.deviation)) == (0.05, -9)


@pytest.mark.parametrize("seeds_differ", [False, True])
def test_one_item_is_no_outlier_among_identical_trials(
    seeds_differ: bool,
) -> None:
    of_seed = np.array([0.0, 1, 2]) * seeds_differ
    points = grid((np.zeros((6, 1)) + of_seed).tolist(), SIX)
    points[0.1, "1"] += 5
    assert draw_conclusions(rows_at(points)).outliers == ()
