"""benchmarks.studies and truths: literal points of the truths, measured noise."""

import csv
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies import (
    LARGE_FLAT,
    LOW_GROUP,
    PAPER_PLWS,
    PLWS,
    SEVEN_GROUPS,
    THREE_GROUPS,
    Benchmark,
    Design,
    Rate,
    measured_sd,
    noise_scale,
    overall_means,
    simulate,
    write_csv,
)
from benchmarks.truths import SHAPES, Truth

ROOT = Path(__file__).parents[2]
DESIGN = Design(name="6 x 3")
# Mean of 64.4, 45.333 and 24.2, the mean levels of the three groups.
LEVEL = 44.64444444


def truth_of(name: str, number: int = 0, design: Design = DESIGN) -> Truth:
    return simulate(name, design, number).truth


def test_the_generator_imports_nothing_of_the_project() -> None:
    program = (
        "import sys, benchmarks.studies\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}"
        " & {'orchestrator', 'trainers', 'evals', 'scipy', 'statsmodels'}))"
    )
    child = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert child.stdout.strip() == "[]"


def test_a_study_is_the_same_each_time_and_differs_from_the_next() -> None:
    study = simulate("hill", DESIGN, 3)
    assert study.rows == simulate("hill", DESIGN, 3).rows
    assert study.rows != simulate("hill", DESIGN, 4).rows
    assert len(study.rows) == 6 * 3 * 13
    assert len({row.trial for row in study.rows}) == 18


@pytest.mark.parametrize("layout", [THREE_GROUPS, LOW_GROUP, LARGE_FLAT])
def test_thirteen_benchmarks_are_in_groups_of_five_three_and_five(
    layout: tuple[Benchmark, ...],
) -> None:
    groups = [benchmark.group for benchmark in layout]
    assert [groups.count(name) for name in ("knowledge", "answers", "texts")] == [5, 3, 5]
    levels = [benchmark.level for benchmark in layout]
    assert (min(levels), max(levels)) == (0.03, 0.9)


def test_seven_groups_make_eight_verdicts() -> None:
    assert len(SEVEN_GROUPS) == 13
    assert len({benchmark.group for benchmark in SEVEN_GROUPS}) == 7


def test_a_large_task_of_each_group_has_no_effect() -> None:
    study = simulate("hill", Design(name="large", benchmarks=LARGE_FLAT), 0)
    large = [each.name for each in LARGE_FLAT if each.num_items == 10_000]
    assert large == ["knowledge_0", "answers_0", "texts_0"]
    scores = [row.score for row in study.rows if row.benchmark == "answers_0"]
    others = [row.score for row in study.rows if row.benchmark == "answers_1"]
    assert max(scores) - min(scores) < 0.05
    assert max(others) - min(others) > 0.05
    assert study.truth.span == pytest.approx(3)


@pytest.mark.parametrize(
    "layout",
    [THREE_GROUPS, LOW_GROUP, LARGE_FLAT, SEVEN_GROUPS],
    ids=["three", "low", "large", "7"],
)
def test_a_trials_overall_mean_has_an_sd_of_half_a_point(layout: tuple[Benchmark, ...]) -> None:
    design = Design(name="sd", benchmarks=layout)
    # 200 studies with 15 degrees of freedom: four standard errors of the sd are 0.026.
    assert measured_sd(design, 200) == pytest.approx(0.5, abs=0.026)


def test_seed_effects_do_not_change_the_sd_within_seeds() -> None:
    design = Design(name="seeds", seed_sd=2.0)
    assert measured_sd(design, 200) == pytest.approx(0.5, abs=0.026)
    means = [
        [np.mean([values[plw, seed] for plw in PLWS]) for seed in range(3)]
        for values in (overall_means(simulate("none", design, each).rows) for each in range(200))
    ]
    # The mean of six trials adds 0.5 / sqrt(6) to 2; four standard errors of 400 are 0.29.
    sd = math.sqrt(np.var(means, axis=1, ddof=1).mean())
    assert sd == pytest.approx(math.sqrt(4 + 0.25 / 6), abs=0.29)


def test_one_weight_can_be_three_times_as_noisy() -> None:
    design = Design(name="noisy", noise_factors={1.0: 3.0})
    # 600 deviations: four standard errors are 0.18 at 1. At another weight they are 0.1, because
    # the noisy weight is in the mean that it is compared with.
    assert measured_sd(design, 200, plw=1.0) == pytest.approx(1.5, abs=0.18)
    assert measured_sd(design, 200, plw=0.05) == pytest.approx(0.5, abs=0.1)


def test_heavy_tails_give_more_extreme_trials_than_normal_noise() -> None:
    def share_far_off(design: Design) -> float:
        far = []
        for number in range(200):
            means = overall_means(simulate("none", design, number).rows)
            for seed in range(3):
                values = np.array([means[plw, seed] for plw in PLWS])
                far.extend(abs(values - np.median(values)) > 2)
        return float(np.mean(far))

    # A t of 3 degrees of freedom is more than 4 sds off in 0.3% of trials, a normal one in 0.006%.
    assert share_far_off(DESIGN) <= 0.0006
    assert share_far_off(Design(name="heavy", has_heavy_tails=True)) >= 0.001


def test_items_noisier_than_the_requested_sd_are_refused() -> None:
    with pytest.raises(ValueError, match=r"items alone give an sd of 0\.30, wanted 0\.20"):
        noise_scale(THREE_GROUPS, 0.2)


def test_effects_that_drive_scores_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match=r"linear: expected scores leave \[0\.005, 0\.995\]"):
        simulate("linear", Design(name="huge", span=60.0), 0)


def test_a_seventh_of_the_scores_is_missing_on_request() -> None:
    rows = simulate("none", Design(name="missing", missing=0.15), 0).rows
    # Four standard errors of 234 scores are 22.
    assert abs(len(rows) - 0.85 * 234) < 22


@pytest.mark.parametrize("name", sorted(set(SHAPES) - {"none", "opposite-groups"}))
def test_the_overall_curve_spans_three_points_over_tried_weights(name: str) -> None:
    layout = LOW_GROUP if name == "low-group" else THREE_GROUPS
    truth = truth_of(name, 0, Design(name="span", benchmarks=layout))
    values = [
        math.fsum(truth.levels[group] + truth.rise(group, plw) for group in truth.levels) / 3
        for plw in PLWS
    ]
    assert max(values) - min(values) == pytest.approx(3)
    assert (max(values) + min(values)) / 2 == pytest.approx(
        LEVEL if name != "low-group" else 40.11111111
    )


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("linear", {0.0: -1.5, 0.1: -1.2, 0.5: 0.0, 1.0: 1.5}),
        ("convex", {0.0: -1.5, 0.1: -1.47, 0.5: -0.75, 1.0: 1.5}),
        ("step", {0.0: -1.5, 1e-6: 1.5, 0.01: 1.5, 1.0: 1.5}),
        ("at-0", {0.0: 1.5, 0.1: 0.75, 1.0: -1.5}),
        ("at-1", {0.0: -1.5, 0.1: 0.75, 1.0: 1.5}),
        # (1.3^2 - 0.8^2) / (1.3^2 - 0.3^2) of the way.
        ("beyond-1", {0.0: -1.5, 0.1: 0.46875, 1.0: 1.5}),
        # (1 - exp(-1.5)) / (1 - exp(-3)) of the way.
        ("saturating", {0.0: -1.5, 0.1: 0.95272, 1.0: 1.5}),
        ("fast-rise", {0.0: -1.5, 0.01: 1.5, 0.1: 1.0, 1.0: 0.0}),
        ("sharp-peak", {0.0: -1.5, 0.01: 1.5, 0.05: -1.5, 1.0: -1.5}),
        ("none", {0.0: 0.0, 0.01: 0.0, 1.0: 0.0}),
        ("opposite-groups", {0.0: 0.0, 0.01: 0.0, 0.7: 0.0, 1.0: 0.0}),
    ],
)
def test_truths_are_known_exactly_in_points(name: str, points: dict[float, float]) -> None:
    truth = truth_of(name)
    for plw, expected in points.items():
        assert truth.overall(plw) == pytest.approx(LEVEL + expected, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "continuum", "tried"),
    [
        ("none", ((0.0, 1.0),), PLWS),
        ("opposite-groups", ((0.0, 1.0),), PLWS),
        ("at-0", ((0.0, 0.0),), (0.0,)),
        ("at-1", ((1.0, 1.0),), (1.0,)),
        ("beyond-1", ((1.0, 1.0),), (1.0,)),
        ("linear", ((1.0, 1.0),), (1.0,)),
        ("convex", ((1.0, 1.0),), (1.0,)),
        ("saturating", ((1.0, 1.0),), (1.0,)),
        ("step", ((1e-6, 1.0),), PLWS[1:]),
        ("fast-rise", ((0.01, 0.01),), (0.01,)),
        ("sharp-peak", ((0.01, 0.01),), (0.01,)),
    ],
)
def test_the_best_weights_are_known(
    name: str, continuum: tuple[tuple[float, float], ...], tried: tuple[float, ...]
) -> None:
    truth = truth_of(name)
    assert truth.best_continuum == continuum
    assert truth.best_tried == tried


def test_hills_have_their_maximum_inside_and_at_several_weights() -> None:
    truths = [truth_of("hill", number) for number in range(100)]
    tops = [truth.best_continuum[0][0] for truth in truths]
    # Positions 0.3 and 0.75 on the axis of PLW ** 0.30103.
    assert min(tops) >= 0.0183
    assert max(tops) <= 0.3846
    assert {truth.best_tried[0] for truth in truths} >= {0.05, 0.242}
    for truth in truths:
        grid = [truth.overall(plw) for plw in np.linspace(0, 1, 200)]
        assert truth.best_value >= max(grid)


def test_a_plateau_is_best_from_its_knee_on() -> None:
    truth = truth_of("plateau")
    ((knee, end),) = truth.best_continuum
    assert end == 1
    assert truth.overall(knee) == pytest.approx(LEVEL + 1.5)
    assert truth.overall(1.0) == pytest.approx(LEVEL + 1.5)
    assert truth.overall(knee * 0.9) < LEVEL + 1.49
    assert truth.best_tried == tuple(plw for plw in PLWS if plw >= knee)


def test_opposite_groups_cancel() -> None:
    truth = truth_of("opposite-groups")
    assert truth.group("knowledge", 0.0) == pytest.approx(62.9)
    assert truth.group("knowledge", 1.0) == pytest.approx(65.9)
    assert truth.group("answers", 1.0) == truth.group("answers", 0.0)
    assert truth.group("texts", 0.0) == pytest.approx(25.7)
    assert truth.group("texts", 1.0) == pytest.approx(22.7)


def test_only_the_group_of_the_lowest_level_gains() -> None:
    truth = truth_of("low-group", 0, Design(name="low", benchmarks=LOW_GROUP))
    values = {group: [truth.group(group, plw) for plw in PLWS] for group in truth.levels}
    assert np.ptp(values["knowledge"]) == 0
    assert np.ptp(values["answers"]) == 0
    assert np.ptp(values["texts"]) == pytest.approx(9)
    assert truth.levels["texts"] == pytest.approx(10.6)


@pytest.mark.parametrize("name", ["hill", "low-group", "linear", "sharp-peak"])
def test_scores_have_the_expectations_of_the_truth(name: str) -> None:
    design = Design(
        name="means", benchmarks=LOW_GROUP if name == "low-group" else THREE_GROUPS, seed_sd=0.1
    )
    errors = []
    for number in range(100):
        study = simulate(name, design, number)
        means = overall_means(study.rows)
        errors.append([np.mean([means[plw, seed] for seed in range(3)]) - study.truth.overall(plw)
                       for plw in PLWS])  # fmt: skip
    # Four standard errors of 300 trials are 0.12.
    assert np.mean(errors, axis=0) == pytest.approx(np.zeros(6), abs=0.12)


def test_one_trial_is_at_chance() -> None:
    study = simulate("chance-trial", DESIGN, 0)
    # Mean chance of the groups: 35, 25 and 0.2.
    low = [mean for mean in overall_means(study.rows).values() if mean < 30]
    assert low == [pytest.approx(20.07, abs=1)]
    assert study.truth.span == pytest.approx(3)


def test_all_seeds_of_one_weight_are_at_chance_and_it_is_never_best() -> None:
    diverged = set()
    for number in range(30):
        study = simulate("diverged-weight", DESIGN, number)
        means = overall_means(study.rows)
        low = [plw for (plw, _), mean in means.items() if mean < 30]
        assert low == [study.truth.diverged] * 3
        assert study.truth.diverged not in study.truth.best_tried
        assert study.truth.overall(low[0]) == pytest.approx(20.0667, abs=1e-4)
        diverged.add(low[0])
    assert len(diverged) > 3


def test_two_weights_and_ten_weights_are_designs() -> None:
    two = simulate("linear", Design(name="2 x 5", plws=(0.0, 0.1), num_seeds=5, span=1.5), 0)
    assert len(two.rows) == 2 * 5 * 13
    assert two.truth.overall(0.1) - two.truth.overall(0.0) == pytest.approx(1.5)
    assert two.truth.best_continuum == ((0.1, 0.1),)
    ten = simulate("none", Design(name="10 x 1", plws=PAPER_PLWS, num_seeds=1), 0)
    assert len(ten.rows) == 10 * 13


def test_a_csv_file_has_empty_cells_for_unstated_errors(tmp_path: Path) -> None:
    study = simulate("hill", DESIGN, 0)
    write_csv(study.rows, tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["benchmark", "group", "plw", "learning_rate", "seed", "trial", "score",
                             "num_items", "standard_error"]  # fmt: skip
    assert len(rows) == 234
    assert rows[0]["learning_rate"] == ""
    assert (rows[0]["num_items"], rows[0]["standard_error"]) == ("2376", "")
    assert (rows[5]["num_items"], rows[5]["standard_error"]) == ("", "")
    assert rows[8]["num_items"] == ""
    assert float(rows[8]["standard_error"]) > 0
    assert [float(row["score"]) for row in rows] == [row.score for row in study.rows]


def test_learning_rates_move_the_level_and_the_effect_of_the_weight() -> None:
    rates = (Rate(value=1e-4, level=-2.0, rise=0.0), Rate(value=3e-4, level=0.0, rise=1.0))
    design = replace(DESIGN, plws=(0.0, 1.0), rates=rates, noise_sd=0.3, seed_sd=0.0, num_seeds=200)
    study = simulate("linear", design, 0)
    assert len(study.rows) == 2 * 2 * 200 * 13
    for rate, start, end in ((1e-4, -2.0, -2.0), (3e-4, -1.5, 1.5)):
        means = overall_means(row for row in study.rows if row.learning_rate == rate)
        for plw, rise in ((0.0, start), (1.0, end)):
            own = np.mean([value for (at, _), value in means.items() if at == plw])
            assert own - LEVEL == pytest.approx(rise, abs=0.15)
