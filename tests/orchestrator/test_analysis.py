from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evals.scores import ScoreCard
from orchestrator.analysis import analyse, headline, over_seeds, read_findings
from orchestrator.findings import Findings, format_value, w_p
from orchestrator.record import SweepFolder, TrialRecord
from tests.orchestrator.sweeps import (
    BASE,
    OTHER_BASE,
    card,
    score,
    sweep_record,
    trial,
    write_two_models,
)

ACCURACY = "multiple_choice_accuracy"
LOSS = "heldout_completion_loss"
NO_DEMO = {"model": {"path": "m"}, "data": {"path": "d"}}


def findings_of(
    scored: Mapping[float, Mapping[str, tuple[float, float | None, float | None]]],
    untuned: ScoreCard | None = None,
    **changes: Any,
) -> Findings:
    trials = [trial(plw) for plw in scored]
    cards = {t.id: card(scored[t.prompt_loss_weight]) for t in trials}
    return analyse(
        sweep_record([t.id for t in trials], **changes),
        trials,
        cards,
        {BASE: untuned} if untuned else {},
    )


def without_demo(record: TrialRecord) -> TrialRecord:
    return record.model_copy(update={"settings": record.settings | NO_DEMO})


@pytest.mark.parametrize(("plw", "expected"), [(0.0, 0.0), (0.1, 0.5), (1.0, 1.0)])
def test_w_p_maps_a_tenth_to_a_half(plw: float, expected: float) -> None:
    assert w_p(plw) == pytest.approx(expected, abs=1e-6)


def test_best_is_named_where_its_interval_is_apart_from_all_others() -> None:
    (measure,) = findings_of(
        {
            0.0: {ACCURACY: (0.60, 0.55, 0.65)},
            0.1: {ACCURACY: (0.80, 0.75, 0.85)},
            1.0: {ACCURACY: (0.70, 0.66, 0.74)},
        }
    ).measures
    assert measure.is_named
    assert measure.best is not None
    assert measure.best.prompt_loss_weight == 0.1
    assert measure.verdict == (
        "PLW 0.1 is best: its interval, 0.75 to 0.85, overlaps no other PLW's"
    )
    assert [(p.prompt_loss_weight, round(p.w_p, 6)) for p in measure.points] == [
        (0.0, 0.0),
        (0.1, 0.5),
        (1.0, 1.0),
    ]


def test_weights_that_tie_are_all_named_in_the_headline() -> None:
    found = findings_of(
        {
            0.0: {ACCURACY: (0.65, 0.50, 0.77)},
            0.1: {ACCURACY: (0.65, 0.50, 0.77)},
            1.0: {ACCURACY: (0.60, 0.46, 0.73)},
        }
    )
    assert headline(found).startswith(
        "Single-seed demo: PLW 0 and 0.1 share the highest multiple-choice accuracy (0.65, 95% "
        "interval 0.50 to 0.77), but the intervals overlap, so no PLW is named best"
    )


def test_intervals_that_touch_overlap() -> None:
    (measure,) = findings_of(
        {0.0: {ACCURACY: (0.60, 0.55, 0.75)}, 0.1: {ACCURACY: (0.80, 0.75, 0.85)}}
    ).measures
    assert not measure.is_named
    assert measure.verdict == (
        "no PLW stands out: intervals overlap (0.75 to 0.85 at PLW 0.1 with PLW 0)"
    )


def test_one_overlapping_rival_is_enough_to_name_none() -> None:
    (measure,) = findings_of(
        {
            0.0: {ACCURACY: (0.30, 0.25, 0.35)},
            0.1: {ACCURACY: (0.80, 0.75, 0.85)},
            1.0: {ACCURACY: (0.74, 0.70, 0.78)},
        }
    ).measures
    assert measure.verdict.endswith("with PLW 1)")


def test_lowest_loss_is_best_and_the_prompts_loss_selects_nothing() -> None:
    (measure,) = findings_of(
        {
            0.0: {LOSS: (2.0, 1.9, 2.1), "heldout_prompt_loss": (4.0, 3.9, 4.1)},
            1.0: {LOSS: (2.5, 2.4, 2.6), "heldout_prompt_loss": (2.0, 1.9, 2.1)},
        }
    ).measures
    assert measure.name == LOSS
    assert measure.is_named
    assert measure.best is not None
    assert measure.best.prompt_loss_weight == 0.0


def test_missing_interval_names_none() -> None:
    (measure,) = findings_of(
        {0.0: {ACCURACY: (0.1, None, None)}, 0.1: {ACCURACY: (0.9, 0.85, 0.95)}}
    ).measures
    assert (measure.is_named, measure.verdict) == (
        False,
        "no PLW stands out: no interval for PLW 0",
    )


def test_single_plw_has_nothing_to_be_compared_with() -> None:
    findings = findings_of({0.1: {ACCURACY: (0.9, 0.85, 0.95)}})
    assert not findings.measures[0].is_named
    assert headline(findings) == (
        "Single-seed demo: only PLW 0.1 has scores (multiple-choice accuracy 0.90, 95% interval "
        "0.85 to 0.95), so there is nothing to compare it with."
    )


def test_seeds_are_averaged_with_a_student_t_interval() -> None:
    scores = [score(ACCURACY, (value, 0.0, 1.0)) for value in (0.70, 0.74, 0.78)]
    estimate = over_seeds(scores)
    # mean 0.74, standard deviation 0.04, t(0.975, 2) = 4.302653, half width 4.302653 * 0.04 / 3**.5
    assert estimate.value == pytest.approx(0.74)
    assert estimate.ci_low == pytest.approx(0.74 - 0.0993655, abs=1e-6)
    assert estimate.ci_high == pytest.approx(0.74 + 0.0993655, abs=1e-6)
    assert estimate.interval == "seeds"


def test_seeds_that_agree_keep_the_items_interval_and_not_one_of_width_zero() -> None:
    scores = [score(ACCURACY, (0.75, 0.63, 0.84)), score(ACCURACY, (0.75, 0.64, 0.85))]
    estimate = over_seeds(scores)
    assert (estimate.ci_low, estimate.ci_high, estimate.interval) == (0.63, 0.85, "items")


def test_two_seeds_of_a_share_have_an_interval_within_0_and_1() -> None:
    scores = [score(ACCURACY, (0.9, 0.8, 0.95)), score(ACCURACY, (0.8, 0.7, 0.9))]
    estimate = over_seeds(scores)
    # t(0.975, 1) = 12.706205, half width 12.706205 * 0.0707107 / 2**.5 = 0.63531
    assert estimate.ci_low == pytest.approx(0.85 - 0.6353102, abs=1e-6)
    assert estimate.ci_high == 1.0


def test_seeds_of_one_plw_are_one_point_and_several_settings_are_several() -> None:
    trials = [
        trial(plw, seed=seed, searched={"optimizer.learning_rate": rate, "seed": seed})
        for plw in (0.0, 0.1)
        for rate in (1e-5, 1e-4)
        for seed in (0, 1)
    ]
    cards = {
        t.id: card({ACCURACY: (0.5 + index / 100, 0.4, 0.7)}) for index, t in enumerate(trials)
    }
    findings = analyse(sweep_record([t.id for t in trials]), trials, cards, {})
    (measure,) = findings.measures
    found = [(p.prompt_loss_weight, p.other_settings, p.seeds) for p in measure.points]
    assert found == [
        (0.0, {"optimizer.learning_rate": 1e-5}, [0, 1]),
        (0.0, {"optimizer.learning_rate": 1e-4}, [0, 1]),
        (0.1, {"optimizer.learning_rate": 1e-5}, [0, 1]),
        (0.1, {"optimizer.learning_rate": 1e-4}, [0, 1]),
    ]
    assert not findings.single_seed
    assert headline(findings).startswith("Demo: PLW 0.1 (optimizer.learning_rate 0.0001) had the")


def test_normalization_modes_are_never_pooled() -> None:
    one, other = trial(0.1, seed=0), trial(0.1, seed=1)
    loss = {"prompt_loss_weight": 0.1, "normalization": "completion"}
    other = other.model_copy(update={"settings": other.settings | {"loss": loss}})
    cards = {t.id: card({ACCURACY: (0.5, 0.4, 0.6)}) for t in (one, other)}
    findings = analyse(sweep_record([one.id, other.id]), [one, other], cards, {})
    assert [point.seeds for point in findings.measures[0].points] == [[0], [1]]
    assert findings.normalizations == ["completion", "weights"]


def test_untuned_model_is_beaten_only_where_the_intervals_are_apart() -> None:
    scores = {0.0: {ACCURACY: (0.60, 0.50, 0.70)}, 0.1: {ACCURACY: (0.80, 0.75, 0.85)}}
    for interval, beats in (
        ((0.5, 0.4, 0.6), True),
        ((0.7, 0.6, 0.8), False),
        ((0.95, 0.9, 0.99), False),
    ):
        findings = findings_of(scores, card({ACCURACY: interval}))
        assert findings.measures[0].beats_untuned is beats
    assert findings_of(scores).measures[0].beats_untuned is None


def test_failed_and_unfinished_trials_are_counted_and_not_scored() -> None:
    done = [without_demo(trial(plw)) for plw in (0.0, 0.1)]
    failed = without_demo(trial(0.5, state="failed", error="nan"))
    running = without_demo(trial(1.0, state="training"))
    cards = {t.id: card({ACCURACY: (0.5, 0.4, 0.6)}) for t in [*done, failed]}
    planned = [t.id for t in [*done, failed, running]] + ["not-begun"]
    findings = analyse(sweep_record(planned), [*done, failed, running], cards, {})
    assert findings.trials.model_dump() == {
        "planned": 5,
        "done": 2,
        "failed": 1,
        "stopped": 0,
        "unfinished": 2,
        "scored": 2,
    }
    assert [p.prompt_loss_weight for p in findings.measures[0].points] == [0.0, 0.1]
    assert headline(findings) == (
        "Single seed: PLW 0 and 0.1 share the highest multiple-choice accuracy (0.50, 95% "
        "interval 0.40 to 0.60), but the intervals overlap, so no PLW is named best. Of 5 "
        "trials, 1 failed and 2 unfinished."
    )


def test_sweep_without_scores_recommends_nothing() -> None:
    findings = analyse(sweep_record(["a", "b"]), [], {}, {})
    assert findings.measures == []
    assert findings.groups_not_measured == [
        "multiple_choice",
        "short_generation",
        "long_generation",
    ]
    assert headline(findings) == (
        "No PLW can be recommended: no trial has scores yet. Of 2 trials, 2 unfinished."
    )


def test_demo_headline_is_truthful_about_overlap(demo_sweep: SweepFolder) -> None:
    findings = read_findings(demo_sweep)
    assert headline(findings) == (
        "Single-seed demo: PLW 0.01 had the highest multiple-choice accuracy (0.78, 95% interval "
        "0.66 to 0.87), but the intervals overlap, so no PLW is named best, and no other measure "
        "names one."
    )
    assert [measure.name for measure in findings.measures] == [
        "multiple_choice_accuracy",
        "short_generation_exact_match",
        "long_generation_chrf",
        "heldout_completion_loss",
    ]
    assert findings.generation_ratio == 0.0421


def test_headline_names_the_plw_of_each_measure_that_has_one() -> None:
    findings = findings_of(
        {
            0.0: {ACCURACY: (0.60, 0.55, 0.65), LOSS: (2.0, 1.9, 2.1)},
            0.1: {ACCURACY: (0.80, 0.75, 0.85), LOSS: (2.1, 2.0, 2.2)},
        }
    )
    assert headline(findings) == (
        "Single-seed demo: the best is PLW 0.1 for multiple-choice accuracy (0.80, 95% "
        "interval 0.75 to 0.85), apart from every other PLW; 1 other measure names none."
    )


def test_findings_survive_json(demo_sweep: SweepFolder) -> None:
    findings = read_findings(demo_sweep)
    assert Findings.model_validate_json(findings.model_dump_json()) == findings


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.781, "share of items", "0.78"),
        (24.13, "chrF", "24.1"),
        (2.0314, "nats per token", "2.031"),
        (None, "chrF", "-"),
    ],
)
def test_values_show_the_digits_of_their_scale(
    value: float | None, unit: str, expected: str
) -> None:
    assert format_value(value, unit) == expected


def test_each_model_has_its_own_best_and_its_own_untuned_score(tmp_path: Path) -> None:
    findings = read_findings(write_two_models(tmp_path / "s"))
    weak, strong = findings.measures
    assert [measure.id for measure in findings.measures] == [
        f"multiple_choice_accuracy-{BASE}",
        f"multiple_choice_accuracy-{OTHER_BASE}",
    ]
    assert weak.title == "Multiple choice, accuracy (model weak)"
    assert [point.value for point in weak.points] == [0.3, 0.5]
    assert [point.label for point in weak.points] == ["PLW 0", "PLW 0.1"]
    assert weak.untuned is not None
    assert weak.untuned.value == 0.4
    assert weak.beats_untuned is True
    assert [point.value for point in strong.points] == [0.5, 0.7]
    assert strong.untuned is not None
    assert strong.untuned.value == 0.68
    assert strong.beats_untuned is False
    assert headline(findings).startswith(
        "Single-seed demo: the best is PLW 0.1 for multiple-choice accuracy of model weak (0.50, "
        "95% interval 0.45 to 0.55)"
        " and PLW 0.1 for multiple-choice accuracy of model strong (0.70, 95%"
    )
