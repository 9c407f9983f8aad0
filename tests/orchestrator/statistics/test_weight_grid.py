"""Free means of pairs of weights, compared with hand arithmetic, other fits and known truths."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest
import statsmodels.formula.api as formulas
from pandas import DataFrame
from scipy import stats
from statsmodels.stats.anova import anova_lm

from orchestrator.statistics.weight_grid import WeightGrid, fit_weight_grid
from orchestrator.statistics.weight_trials import WeightTrial
from tests.orchestrator.two_weights import Truth, grid_trials, product, ratio_alone
from trainers.foundation.errors import InputError

PAIRS = ((0.1, 0.5), (0.1, 1.0), (0.2, 0.5), (0.2, 1.0))
# By seed: the scores of those pairs. Their means are 11, 13, 12 and 18.
SCORES = {"a": (10, 12, 11, 17), "b": (13, 13, 12, 20), "c": (10, 14, 13, 17)}


def make_trials(scores: dict[str, Sequence[float]]) -> list[WeightTrial]:
    return [
        WeightTrial(prompt_weight=pair[0], completion_weight=pair[1], seed=seed, score=score)
        for seed, distinct in scores.items()
        for pair, score in zip(PAIRS, distinct, strict=True)
    ]


@pytest.fixture(scope="module")
def small() -> WeightGrid:
    return fit_weight_grid(make_trials(SCORES))


def test_balanced_sums_of_squares_equal_hand_arithmetic(small: WeightGrid) -> None:
    # Of 103: seeds 8, pairs 87 (27 prompt, 48 completion, 12 interaction), noise 8 with 6 df. The
    # pairs (0.1, 0.5) and (0.2, 1) have one ratio and means of 11 and 18: 3 x 7^2 / 2 = 73.5.
    assert (small.freedom_noise, small.seeds_are_blocks) == (6, True)
    assert small.noise_sd == pytest.approx((8 / 6) ** 0.5)
    assert {test.name: (test.f, test.freedom) for test in small.tests} == {
        "any difference": (pytest.approx(87 / 3 / (8 / 6)), 3),
        "prompt weight": (pytest.approx(27 / (8 / 6)), 1),
        "completion weight": (pytest.approx(48 / (8 / 6)), 1),
        "interaction": (pytest.approx(12 / (8 / 6)), 1),
        "more than the ratio": (pytest.approx(73.5 / (8 / 6)), 1),
    }
    # Tables of F: 21.75 with 3 and 6; 20.25, 36, 9 and 55.125 with 1 and 6 degrees of freedom.
    assert [test.p_value for test in small.tests] == pytest.approx(
        [1.2643406e-3, 4.1039337e-3, 9.6453519e-4, 2.4008197e-2, 3.0712849e-4], rel=1e-6
    )


def test_p_values_are_corrected_by_holm(small: WeightGrid) -> None:
    # Sorted: 0.000307 x 5, 0.000965 x 4, 0.00126 x 3 (no less than the one before), 0.0041 x 2.
    assert [test.adjusted_p_value for test in small.tests] == pytest.approx(
        [3.8581408e-3, 8.2078674e-3, 3.8581408e-3, 2.4008197e-2, 1.5356425e-3], rel=1e-6
    )


def test_differences_and_means_have_students_intervals(small: WeightGrid) -> None:
    # t(0.975; 6) = 2.446912: 2.446912 x sqrt(2 x 4/3 / 3) = 2.306971, x sqrt(4/3 / 3) = 1.631275.
    cell = small.cell((0.2, 1.0))
    assert small.reference == (0.1, 1.0)
    assert (cell.mean, cell.difference) == (pytest.approx(18), pytest.approx(5))
    assert cell.difference_high == pytest.approx(5 + 2.306971, abs=1e-6)
    assert cell.mean_low == pytest.approx(18 - 1.631275, abs=1e-6)
    # Bonferroni over the three other pairs: t(1 - 0.025 / 3; 6) = 3.287455.
    assert (small.best, small.gain) == ((0.2, 1.0), pytest.approx(5))
    assert small.gain_low == pytest.approx(5 - 3.099442, abs=1e-6)


def test_significantly_worse_pairs_are_not_among_the_best(small: WeightGrid) -> None:
    # One-sided t of (18 - mean) / sqrt(8 / 9) with 6 df, times the three others.
    found = {cell.pair: (cell.may_be_best, cell.p_value) for cell in small.cells}
    assert found == {
        (0.1, 0.5): (False, pytest.approx(4.6069273e-4, rel=1e-6)),
        (0.1, 1.0): (False, pytest.approx(2.7360776e-3, rel=1e-6)),
        (0.2, 0.5): (False, pytest.approx(1.0598889e-3, rel=1e-6)),
        (0.2, 1.0): (True, 1.0),
    }


def test_bound_on_differences_of_equal_ratio_is_the_interval_end(
    small: WeightGrid,
) -> None:
    assert small.equal_ratio_difference == pytest.approx(7)
    assert small.equal_ratio_difference_high == pytest.approx(7 + 2.306971, abs=1e-6)
    assert [cell.ratio for cell in small.cells] == [0.2, 0.1, 0.4, 0.2]


def test_incomplete_table_equals_a_model_with_seed_columns() -> None:
    trials = grid_trials(product, prompts=(0.1, 0.2, 0.5), completions=(0.3, 0.6, 1.0), seeds=4)
    trials = [trial for index, trial in enumerate(trials) if index % 7 != 3]
    grid = fit_weight_grid(trials)
    data = DataFrame([asdict(trial) for trial in trials])
    model = formulas.ols("score ~ C(seed) + C(prompt_weight) * C(completion_weight)", data).fit()
    table = anova_lm(model, typ=2)
    for name, row in (
        ("prompt weight", "C(prompt_weight)"),
        ("completion weight", "C(completion_weight)"),
        ("interaction", "C(prompt_weight):C(completion_weight)"),
    ):
        test = grid.test(name)
        assert test.f == pytest.approx(table.loc[row, "F"], rel=1e-9)
        assert test.p_value == pytest.approx(table.loc[row, "PR(>F)"], rel=1e-9)
    assert grid.freedom_noise == model.df_resid


def test_means_and_ratio_test_equal_a_dummy_variable_fit() -> None:
    trials = grid_trials(product, seeds=4)
    trials = [trial for index, trial in enumerate(trials) if index % 5 != 2]
    grid = fit_weight_grid(trials)
    scores = np.array([trial.score for trial in trials])
    seeds = np.array([[trial.seed == seed for seed in "0123"] for trial in trials], dtype=float)

    def columns(keys: Sequence[object]) -> np.ndarray:
        levels = list(dict.fromkeys(keys))
        return np.array([[key == level for level in levels] for key in keys], dtype=float)

    def residual(design: np.ndarray) -> tuple[float, np.ndarray]:
        both = np.column_stack([design, seeds[:, 1:]])
        found = np.linalg.lstsq(both, scores, rcond=None)[0]
        return float(((scores - both @ found) ** 2).sum()), found

    pairs = [(trial.prompt_weight, trial.completion_weight) for trial in trials]
    all_pairs, found = residual(columns(pairs))
    same_ratio, _ = residual(columns([round(pair[0] / pair[1], 6) for pair in pairs]))
    names = list(dict.fromkeys(pairs))
    for pair, level in zip(names, found, strict=False):
        assert grid.cell(pair).mean == pytest.approx(level + found[len(names) :].sum() / 4)
    test = grid.test("more than the ratio")
    # 12 pairs with 7 ratios: 0, 0.1, 0.2, 0.4, 0.8 and 1.6 are shared or alone.
    assert test.freedom == len(names) - 6
    assert grid.freedom_noise == len(trials) - len(names) - 3
    expected = (same_ratio - all_pairs) / test.freedom / (all_pairs / grid.freedom_noise)
    assert test.f == pytest.approx(expected, rel=1e-9)
    assert test.p_value == pytest.approx(
        stats.f.sf(expected, test.freedom, grid.freedom_noise), rel=1e-9
    )


STUDIES = 25


def fit_studies(truth: Truth, seeds: int = 3) -> list[WeightGrid]:
    return [
        fit_weight_grid(grid_trials(truth, seeds=seeds, seed=number)) for number in range(STUDIES)
    ]


@pytest.mark.slow
def test_ratio_truth_is_not_claimed_to_be_more_and_keeps_its_best_pairs() -> None:
    grids = fit_studies(ratio_alone)
    assert all(grid.test("prompt weight").is_shown for grid in grids)
    assert all(grid.test("interaction").is_shown for grid in grids)
    # At 5%, of 25 studies 1.25 on average and 4 or more in 3.4% of cases.
    assert sum(grid.test("more than the ratio").is_shown for grid in grids) <= 3
    for pair in ((0.1, 0.5), (0.2, 1.0)):
        assert sum(bool(grid.cell(pair).may_be_best) for grid in grids) >= 23
    # The truth is 0: the bound always holds, and must be useful.
    bounds = [grid.equal_ratio_difference_high for grid in grids]
    assert max(bound for bound in bounds if bound is not None) < 2.5


@pytest.mark.slow
def test_product_truth_is_detected_and_its_best_pair_found() -> None:
    grids = fit_studies(product)
    assert all(grid.test("more than the ratio").is_shown for grid in grids)
    assert all(grid.best == (0.4, 1.0) for grid in grids)
    # True differences of pairs of equal ratio: 8 x (0.4 - 0.1 x 0.25) = 2.4 points at most.
    highs = [grid.equal_ratio_difference_high or 0.0 for grid in grids]
    assert min(highs) >= 2.4
    held = [(g.gain_low or 0.0) <= 3.2 <= (g.gain_high or 0.0) for g in grids]
    assert sum(held) >= 23


@pytest.mark.slow
def test_flat_truth_makes_no_claim() -> None:
    grids = fit_studies(lambda prompt, completion: 40.0)
    assert sum(any(test.is_shown for test in grid.tests) for grid in grids) <= 3
    # Any pair may be truly best: each is left out in at most 5% of studies.
    kept = [cell.may_be_best for grid in grids for cell in grid.cells]
    assert sum(map(bool, kept)) >= 0.95 * len(kept)


def test_common_effect_of_a_seed_is_not_noise() -> None:
    without_levels = fit_weight_grid(grid_trials(product, seed_sd=0.0))
    with_levels = fit_weight_grid(grid_trials(product, seed_sd=50.0))
    assert with_levels.noise_sd == pytest.approx(without_levels.noise_sd)
    assert with_levels.test("interaction").f == pytest.approx(without_levels.test("interaction").f)


def test_single_seed_gives_no_noise_and_no_tests() -> None:
    grid = fit_weight_grid(grid_trials(product, seeds=1))
    reason = "no pair has a second seed, so noise cannot be estimated and nothing is tested"
    assert grid.notes == (reason,)
    assert grid.best == (0.4, 1.0)
    assert (grid.noise_sd, grid.gain_low, grid.equal_ratio_difference_high) == (None, None, None)
    assert {test.p_value for test in grid.tests} == {None}
    assert {test.reason for test in grid.tests} == {reason}
    for cell in grid.cells:
        assert (cell.may_be_best, cell.p_value, cell.mean_low, cell.difference_high) == (None,) * 4


def test_too_few_repeated_pairs_give_no_tests() -> None:
    one = grid_trials(product, seeds=1)
    grid = fit_weight_grid([*one, *(replace(trial, seed="1") for trial in one[:2])])
    assert grid.notes == ("2 residual degrees of freedom, but tests need 3",)
    assert {test.f for test in grid.tests} == {None}


def test_identical_seeds_give_no_noise() -> None:
    grid = fit_weight_grid(grid_trials(product, noise=0.0, seed_sd=0.0))
    assert grid.notes == (
        "seeds have identical scores, so noise cannot be estimated and nothing is tested",
    )
    assert grid.noise_sd is None


def test_unshared_seeds_are_not_blocks() -> None:
    trials = grid_trials(product, seed_sd=0.0)
    distinct = [replace(trial, seed=str(number)) for number, trial in enumerate(trials)]
    grid = fit_weight_grid(distinct)
    assert (grid.seeds_are_blocks, grid.freedom_noise) == (False, 36 - 12)
    assert grid.notes[0].startswith("seeds are not used as blocks because pairs share too few")


def test_outlier_is_noted_with_its_residual() -> None:
    trials = grid_trials(product)
    trials[7] = replace(trials[7], score=trials[7].score - 8)
    [note] = fit_weight_grid(trials).notes
    assert note.startswith(
        "outlier: the trial at prompt weight 0, completion weight 1, seed 1 is -"
    )
    assert fit_weight_grid(grid_trials(product)).notes == ()


def test_unequal_noise_along_an_axis_is_noted() -> None:
    rng = random.Random(4)
    trials = [
        replace(
            trial, score=trial.score + rng.gauss(0, 3 if trial.completion_weight == 0.25 else 0)
        )
        for trial in grid_trials(product)
    ]
    [note] = [note for note in fit_weight_grid(trials).notes if note.startswith("noise")]
    assert note.startswith("noise is unequal: sd 1.4 at completion weight 0.25 and 0.34 at 0.5 ")
    assert note.endswith("remove completion weight 0.25 to check the results without it")
    # At 1% for each axis and for outliers: of ten equal ones 0.3 on average.
    assert sum(bool(fit_weight_grid(grid_trials(product, seed=n)).notes) for n in range(10)) <= 2


def test_lowest_loss_is_best() -> None:
    losses = [replace(trial, score=-trial.score) for trial in grid_trials(product)]
    low, high = fit_weight_grid(losses, higher_is_better=False), fit_weight_grid(losses)
    assert (low.best, high.best) == ((0.4, 1.0), (0.0, 0.5))
    assert low.gain < 0
    assert low.cell((0.4, 1.0)).may_be_best
    assert not low.cell((0.0, 0.5)).may_be_best


def test_completion_weight_0_and_rounding_of_ratios() -> None:
    trials = grid_trials(product, prompts=(0.0, 0.1, 0.3), completions=(0.0, 0.3, 0.9))
    grid = fit_weight_grid(trials)
    assert 0.1 / 0.3 != 0.3 / 0.9
    assert grid.cell((0.1, 0.3)).ratio == grid.cell((0.3, 0.9)).ratio == 0.333333333
    assert grid.cell((0.3, 0.0)).ratio is None
    # 8 pairs; ratios 0 (2 pairs), prompt only (2), 1/3 (2), 1/9 and 1.
    assert grid.test("more than the ratio").freedom == 8 - 5
    assert grid.reference == (0.0, 0.9)


def test_axes_are_untested_if_weights_never_vary_alone() -> None:
    pairs = ((0.1, 0.3), (0.2, 0.5), (0.7, 0.9))
    trials = [
        WeightTrial(prompt_weight=a, completion_weight=b, seed=str(seed), score=40 + a + seed**2)
        for a, b in pairs
        for seed in range(3)
    ]
    trials[0] = replace(trials[0], score=39.5)
    grid = fit_weight_grid(trials)
    assert grid.test("any difference").f is not None
    assert grid.test("prompt weight").reason == (
        "no two prompt weights were tried with the same completion weight"
    )
    assert grid.test("more than the ratio").reason == "no two pairs have the same ratio"
    assert (grid.equal_ratio_difference, grid.equal_ratio_difference_high) == (None, None)


def test_a_grid_survives_json() -> None:
    for seeds in (1, 3):
        content = asdict(fit_weight_grid(grid_trials(product, seeds=seeds)))
        assert json.loads(json.dumps(content, allow_nan=False))["cells"][0]["prompt_weight"] == 0


def test_all_problems_of_trials_are_reported_at_once() -> None:
    good = WeightTrial(prompt_weight=0.1, completion_weight=1.0, seed="0", score=40.0)
    with pytest.raises(InputError) as caught:
        fit_weight_grid(
            [
                good,
                good,
                replace(good, prompt_weight=1.5),
                replace(good, prompt_weight=0.0, completion_weight=0.0),
                replace(good, seed="1", score=float("nan")),
            ]
        )
    assert [str(problem) for problem in caught.value.problems] == [
        "trial 2: second trial of prompt weight 0.1 and completion weight 1 with seed 0; keep one "
        "of the two",
        "trial 3: weights must be in [0, 1] and not both 0, got prompt weight 1.5 and completion "
        "weight 1; correct the weights",
        "trial 4: weights must be in [0, 1] and not both 0, got prompt weight 0 and completion "
        "weight 0; correct the weights",
        "trial 5: score must be finite, got nan; remove the trial",
    ]
    with pytest.raises(
        InputError, match="at least two pairs of weights are needed for a comparison"
    ):
        fit_weight_grid([good])
