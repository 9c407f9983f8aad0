"""Free means of pairs of weights: against arithmetic, against other fits, and against the truth."""

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


def trials_of(scores: dict[str, Sequence[float]]) -> list[WeightTrial]:
    return [
        WeightTrial(prompt_weight=pair[0], completion_weight=pair[1], seed=seed, score=score)
        for seed, own in scores.items()
        for pair, score in zip(PAIRS, own, strict=True)
    ]


@pytest.fixture(scope="module")
def small() -> WeightGrid:
    return fit_weight_grid(trials_of(SCORES))


def test_balanced_sums_of_squares_are_those_of_arithmetic(small: WeightGrid) -> None:
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


def test_pairs_that_another_beats_are_not_among_the_best(small: WeightGrid) -> None:
    # One-sided t of (18 - mean) / sqrt(8 / 9) with 6 df, times the three others.
    found = {cell.pair: (cell.may_be_best, cell.p_value) for cell in small.cells}
    assert found == {
        (0.1, 0.5): (False, pytest.approx(4.6069273e-4, rel=1e-6)),
        (0.1, 1.0): (False, pytest.approx(2.7360776e-3, rel=1e-6)),
        (0.2, 0.5): (False, pytest.approx(1.0598889e-3, rel=1e-6)),
        (0.2, 1.0): (True, 1.0),
    }


def test_pairs_of_equal_ratio_differ_by_at_most_the_end_of_their_interval(
    small: WeightGrid,
) -> None:
    assert small.equal_ratio_difference == pytest.approx(7)
    assert small.equal_ratio_difference_high == pytest.approx(7 + 2.306971, abs=1e-6)
    assert [cell.ratio for cell in small.cells] == [0.2, 0.1, 0.4, 0.2]


def test_a_table_with_holes_agrees_with_a_model_that_has_a_column_for_each_seed() -> None:
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


def test_means_and_the_ratio_agree_with_plain_columns_of_pairs_and_seeds() -> None:
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


def studies(truth: Truth, seeds: int = 3) -> list[WeightGrid]:
    return [
        fit_weight_grid(grid_trials(truth, seeds=seeds, seed=number)) for number in range(STUDIES)
    ]


def test_where_only_the_ratio_matters_no_more_is_claimed_and_the_ridge_is_kept() -> None:
    grids = studies(ratio_alone)
    assert all(grid.test("prompt weight").is_shown for grid in grids)
    assert all(grid.test("interaction").is_shown for grid in grids)
    # At 5%, of 25 studies 1.25 on average and 4 or more in 3.4% of cases.
    assert sum(grid.test("more than the ratio").is_shown for grid in grids) <= 3
    for pair in ((0.1, 0.5), (0.2, 1.0)):
        assert sum(bool(grid.cell(pair).may_be_best) for grid in grids) >= 23
    # The truth is 0: what the bound says of it is never wrong, and it is of some use.
    bounds = [grid.equal_ratio_difference_high for grid in grids]
    assert max(bound for bound in bounds if bound is not None) < 2.5


def test_where_more_than_the_ratio_matters_it_is_shown_and_the_best_pair_found() -> None:
    grids = studies(product)
    assert all(grid.test("more than the ratio").is_shown for grid in grids)
    assert all(grid.best == (0.4, 1.0) for grid in grids)
    # True differences of pairs of equal ratio: 8 x (0.4 - 0.1 x 0.25) = 2.4 points at most.
    highs = [grid.equal_ratio_difference_high or 0.0 for grid in grids]
    assert min(highs) >= 2.4
    held = [(g.gain_low or 0.0) <= 3.2 <= (g.gain_high or 0.0) for g in grids]
    assert sum(held) >= 23


def test_of_weights_that_do_not_matter_nothing_is_claimed() -> None:
    grids = studies(lambda prompt, completion: 40.0)
    assert sum(any(test.is_shown for test in grid.tests) for grid in grids) <= 3
    # Which pair is truly best cannot be told: each is left out in at most 5% of studies.
    kept = [cell.may_be_best for grid in grids for cell in grid.cells]
    assert sum(map(bool, kept)) >= 0.95 * len(kept)


def test_what_a_seed_does_to_all_pairs_is_no_noise() -> None:
    calm = fit_weight_grid(grid_trials(product, seed_sd=0.0))
    moved = fit_weight_grid(grid_trials(product, seed_sd=50.0))
    assert moved.noise_sd == pytest.approx(calm.noise_sd)
    assert moved.test("interaction").f == pytest.approx(calm.test("interaction").f)


def test_one_seed_measures_no_noise_and_tests_nothing() -> None:
    grid = fit_weight_grid(grid_trials(product, seeds=1))
    why = "no pair has a second seed, so noise is not measured and nothing is tested"
    assert grid.notes == (why,)
    assert grid.best == (0.4, 1.0)
    assert (grid.noise_sd, grid.gain_low, grid.equal_ratio_difference_high) == (None, None, None)
    assert {test.p_value for test in grid.tests} == {None}
    assert {test.reason for test in grid.tests} == {why}
    for cell in grid.cells:
        assert (cell.may_be_best, cell.p_value, cell.mean_low, cell.difference_high) == (None,) * 4


def test_too_few_repeated_pairs_test_nothing_either() -> None:
    one = grid_trials(product, seeds=1)
    grid = fit_weight_grid([*one, *(replace(trial, seed="1") for trial in one[:2])])
    assert grid.notes == (
        "2 degrees of freedom for noise: too few to test anything, for which 3 are needed",
    )
    assert {test.f for test in grid.tests} == {None}


def test_seeds_that_agree_to_the_last_digit_measure_no_noise() -> None:
    grid = fit_weight_grid(grid_trials(product, noise=0.0, seed_sd=0.0))
    assert grid.notes == (
        "seeds agree to the last digit, so noise is not measured and nothing is tested",
    )
    assert grid.noise_sd is None


def test_seeds_that_pairs_do_not_share_are_no_blocks() -> None:
    trials = grid_trials(product, seed_sd=0.0)
    own = [replace(trial, seed=str(number)) for number, trial in enumerate(trials)]
    grid = fit_weight_grid(own)
    assert (grid.seeds_are_blocks, grid.freedom_noise) == (False, 36 - 12)
    assert grid.notes[0].startswith("seeds are not blocks here, because too few of them are shared")


def test_an_outlier_is_named_with_its_residual() -> None:
    trials = grid_trials(product)
    trials[7] = replace(trials[7], score=trials[7].score - 8)
    [note] = fit_weight_grid(trials).notes
    assert note.startswith(
        "outlier: the trial at prompt weight 0, completion weight 1, seed 1 is -"
    )
    assert fit_weight_grid(grid_trials(product)).notes == ()


def test_noise_that_is_unequal_along_an_axis_is_noted() -> None:
    rng = random.Random(4)
    trials = [
        replace(
            trial, score=trial.score + rng.gauss(0, 3 if trial.completion_weight == 0.25 else 0)
        )
        for trial in grid_trials(product)
    ]
    [note] = [note for note in fit_weight_grid(trials).notes if note.startswith("noise")]
    assert note.startswith("noise is unequal: sd 1.4 at completion weight 0.25 and 0.34 at 0.5 ")
    assert note.endswith("leave completion weight 0.25 out to see whether they hold without it")
    # At 1% for each axis and for outliers: of ten equal ones 0.3 on average.
    assert sum(bool(fit_weight_grid(grid_trials(product, seed=n)).notes) for n in range(10)) <= 2


def test_of_losses_the_lowest_is_best() -> None:
    losses = [replace(trial, score=-trial.score) for trial in grid_trials(product)]
    low, high = fit_weight_grid(losses, higher_is_better=False), fit_weight_grid(losses)
    assert (low.best, high.best) == ((0.4, 1.0), (0.0, 0.5))
    assert low.gain < 0
    assert low.cell((0.4, 1.0)).may_be_best
    assert not low.cell((0.0, 0.5)).may_be_best


def test_completion_weight_0_and_ratios_that_differ_in_the_last_bit() -> None:
    trials = grid_trials(product, prompts=(0.0, 0.1, 0.3), completions=(0.0, 0.3, 0.9))
    grid = fit_weight_grid(trials)
    assert 0.1 / 0.3 != 0.3 / 0.9
    assert grid.cell((0.1, 0.3)).ratio == grid.cell((0.3, 0.9)).ratio == 0.333333333
    assert grid.cell((0.3, 0.0)).ratio is None
    # 8 pairs; ratios 0 (2 pairs), prompt only (2), 1/3 (2), 1/9 and 1.
    assert grid.test("more than the ratio").freedom == 8 - 5
    assert grid.reference == (0.0, 0.9)


def test_weights_that_never_vary_alone_leave_the_axes_untested() -> None:
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


def test_all_that_is_wrong_with_trials_is_said_at_once() -> None:
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
        "trial 2: a second trial of prompt weight 0.1 and completion weight 1 with seed 0; keep "
        "one of the two",
        "trial 3: weights must be in [0, 1] and not both 0, got prompt weight 1.5 and completion "
        "weight 1; correct the weights",
        "trial 4: weights must be in [0, 1] and not both 0, got prompt weight 0 and completion "
        "weight 0; correct the weights",
        "trial 5: score must be finite, got nan; leave the trial out",
    ]
    with pytest.raises(InputError, match="a comparison needs at least two pairs of weights"):
        fit_weight_grid([good])
