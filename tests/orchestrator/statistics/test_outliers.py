"""Outliers against statsmodels, on designs with seeds as blocks."""

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm

from orchestrator.statistics.conclusions import answer
from orchestrator.statistics.conclusions_markdown import answer_conditions
from orchestrator.statistics.outliers import Outlier, find_outliers
from tests.orchestrator.statistics.scores import (
    PLWS,
    SIX,
    columns,
    fitted,
    grid,
    rows_at,
    rows_of,
    w_p,
)

Points = dict[tuple[float, str], float]


def study(*, seeds: int = 4, seed: int = 0, missing: int = 0) -> Points:
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


def found_in(points: Points) -> list[Outlier]:
    trials, effects = fitted(rows_at(points))
    assert effects.is_blocked
    return find_outliers(effects, trials, "g")


@pytest.mark.parametrize("missing", [0, 2])
@pytest.mark.parametrize("size", [0.0, 2.5, 3.5, -6.0, -20.0])
def test_outliers_and_their_p_values_are_those_of_statsmodels(size: float, missing: int) -> None:
    points = study(missing=missing)
    points[0.1, "2"] += size
    _, p_values = by_statsmodels(points)
    expected = {key: p for key, p in zip(points, p_values, strict=True) if p < 0.01}
    found = {(each.plw, each.seed): each.p_value for each in found_in(points)}
    assert found == pytest.approx(expected, rel=1e-6)
    assert (set(found) == {(0.1, "2")}) == (abs(size) > 2)


def test_the_deviation_is_from_what_the_other_trials_predict() -> None:
    points = study()
    points[0.1, "2"] -= 15
    (outlier,) = found_in(points)
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
    """At 1% over the trials of a study: 3 of 300 expected, 8 or more in one case of 80."""
    assert sum(bool(found_in(study(seeds=3, seed=seed))) for seed in range(300)) < 9


def test_too_few_trials_have_no_outliers() -> None:
    points = grid([[0.0, 1], [1, 2], [2, 30]], (0.0, 0.1, 1.0))
    trials, effects = fitted(rows_at(points))
    assert effects.total_df == 2
    assert find_outliers(effects, trials, "g") == []


def test_a_trial_at_chance_is_listed_with_the_answer_without_it() -> None:
    rows = rows_of(lambda at: -8 * (at - 0.6) ** 2, seed_sd=1.0, trial_sd=0.3, seed=1)
    broken = [
        replace(row, score=row.score - 0.25) if (row.plw, row.seed) == (0.25, "1") else row
        for row in rows
    ]
    found = answer(broken)
    (outlier,) = found.outliers
    assert (outlier.plw, outlier.seed) == (0.25, "1")
    assert outlier.deviation == pytest.approx(-25, abs=1)
    without = answer([row for row in broken if (row.plw, row.seed) != (0.25, "1")])
    assert found.without_outliers == without.verdicts
    assert found.lead.kind == "cannot say"
    assert found.without_outliers[0].kind == "best"
    *_, sentence = answer_conditions(found)
    assert sentence.startswith("Outlier: the trial of PLW 0.25, seed 1 is 2")
    assert "points below what the other trials predict for multiple choice" in sentence
    assert " Without it: best PLW is about 0.1" in sentence


def test_a_table_without_outliers_has_one_answer() -> None:
    found = answer(rows_of(lambda at: -8 * (at - 0.6) ** 2))
    assert (found.outliers, found.without_outliers) == ((), ())


def test_a_second_outlier_that_the_first_one_hides_is_found_after_it() -> None:
    points = study(seeds=4)
    points[0.1, "2"] -= 40
    points[0.3, "1"] -= 5
    assert [(each.plw, each.seed) for each in found_in(points)] == [(0.1, "2")]
    found = answer(rows_at(points))
    assert [(each.plw, each.seed) for each in found.outliers] == [(0.1, "2"), (0.3, "1")]
    assert found.without_outliers[0].num_trials == 22


def test_one_weight_without_replicates_deviates_from_the_assumed_curve() -> None:
    points = {
        (plw, "0"): 2 * w_p(plw) + 0.1 * (-1) ** number
        for number, plw in enumerate((*PLWS, 0.002, 0.8))
    }
    points[0.05, "0"] -= 9
    (outlier,) = answer(rows_at(points)).outliers
    assert (outlier.plw, round(outlier.deviation)) == (0.05, -9)


@pytest.mark.parametrize("seeds_differ", [False, True])
def test_one_item_of_20_is_no_outlier_among_trials_that_agree_to_the_last_digit(
    seeds_differ: bool,
) -> None:
    of_seed = np.array([0.0, 1, 2]) * seeds_differ
    points = grid((np.zeros((6, 1)) + of_seed).tolist(), SIX)
    points[0.1, "1"] += 5
    assert answer(rows_at(points)).outliers == ()
