"""What a sweep's records say, and that it is no more than they can."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from evals.results.scores import ScoreCard
from orchestrator.analysis.answer import analyse, read_findings
from orchestrator.analysis.findings import Findings, format_value
from orchestrator.analysis.headline import conditions, headline
from orchestrator.foundation.plw_scale import w_p
from orchestrator.record.folder import SweepFolder, TrialRecord
from tests.orchestrator.sweeps import (
    BASE,
    DEMO,
    MEASURES,
    UNTUNED,
    card,
    hill,
    sweep_record,
    trial,
    write_hill,
    write_two_models,
)

ACCURACY = "multiple_choice_accuracy"


def findings_of(
    trials: list[TrialRecord], cards: dict[str, ScoreCard], *unscored: TrialRecord, **changes: Any
) -> Findings:
    everything = [*trials, *unscored]
    return analyse(sweep_record([t.id for t in everything], **changes), everything, cards, {})


@pytest.mark.parametrize(("plw", "expected"), [(0.0, 0.0), (0.1, 0.5), (1.0, 1.0)])
def test_w_p_maps_a_tenth_to_a_half(plw: float, expected: float) -> None:
    assert w_p(plw) == pytest.approx(expected, abs=1e-6)


def test_a_clear_hill_is_told_in_two_sentences_with_interval_counts_and_gain() -> None:
    said = headline(findings_of(*hill()))
    first, second = said.split(". PLW")
    assert first == (
        "Overall: best PLW is about 0.24 (95% interval 0.1 to 0.27; nearest tried: 0.25), from 21 "
        "trials of 7 weights with 3 seeds each"
    )
    assert " points over PLW 0 (95% interval " in second
    assert second.endswith("corrected for having been chosen.")


def test_each_group_and_the_held_out_loss_have_a_verdict_of_their_own() -> None:
    findings = findings_of(*hill())
    assert [(verdict.name, verdict.kind) for verdict in findings.verdicts] == [
        ("overall", "best"),
        ("multiple_choice", "best"),
        ("short_generation", "best"),
        ("long_generation", "best"),
        ("heldout_completion_loss", "best"),
    ]
    for verdict in findings.verdicts:
        assert verdict.best_plw == pytest.approx(0.24, abs=0.08)


def test_one_seed_of_four_weights_cannot_say_and_asks_for_a_second_seed(
    demo_sweep: SweepFolder,
) -> None:
    findings = read_findings(demo_sweep)
    said = headline(findings)
    assert said.startswith(
        "Overall: cannot say: 1 trial is left over to estimate noise from, and 3 are needed; a "
        "second seed of each weight would do, from 4 trials of 4 weights with 1 seed each. Run "
        "these 4 next: PLW 0, 0.01, 0.1 and 1 with seed 1."
    )
    assert findings.lead is not None
    assert len(findings.lead.next_runs) == 4
    assert findings.single_seed
    assert findings.generation_ratio == 0.0421


def test_two_weights_are_compared_and_three_without_seeds_cannot_say() -> None:
    assert headline(findings_of(*hill((0.0, 1.0)))).startswith(
        "Overall: PLW 1 is better than 0, by 7.6 points, from 6 trials of 2 weights "
        "with 3 seeds each. PLW 1 gains 7.6 points over PLW 0 (95% interval "
    )


def test_too_few_weights_or_seeds_say_what_is_missing() -> None:
    two = headline(findings_of(*hill((0.0, 1.0), seeds=1)))
    assert "two weights need two degrees of freedom to estimate noise from" in two
    three = headline(findings_of(*hill((0.0, 0.1, 1.0), seeds=1)))
    assert "no trial is left over to estimate noise from; a second seed of each" in three
    one = headline(findings_of(*hill((0.1,), seeds=1)))
    assert "two weights with scores are needed, and there is one" in one


def test_a_headline_from_single_seeds_says_that_it_assumes_a_parabola() -> None:
    findings = findings_of(*hill(seeds=1))
    assert ", from 7 trials of 7 weights with 1 seed each, assuming a parabola in w_p. PLW" in (
        headline(findings)
    )
    assert conditions(findings) == [
        "Too few weights are repeated to test the parabola, or whether noise is equal at all "
        "weights; a second seed of each would."
    ]


def test_a_curve_that_fits_needs_no_conditions() -> None:
    assert conditions(findings_of(*hill())) == []


def stepped() -> tuple[list[TrialRecord], dict[str, ScoreCard]]:
    """Three seeds of six weights: PLW 0 is 10 points worse than the others, which are alike."""
    trials, cards = [], {}
    for number, (plw, seed) in enumerate(product((0.0, 0.01, 0.05, 0.1, 0.5, 1.0), range(3))):
        record = trial(plw, seed=seed, searched={"seed": seed})
        trials.append(record)
        # Seeds differ by 5 points; what is left are up to 0.4 points either way.
        share = 0.4 + 0.1 * (plw > 0) + 0.05 * seed + 0.002 * ((number * 7) % 5 - 2)
        cards[record.id] = card({ACCURACY: (share, share - 0.1, share + 0.1)})
    return trials, cards


def test_a_curve_that_does_not_fit_is_said_to_not_fit_with_the_headline() -> None:
    findings = findings_of(*stepped())
    [condition] = conditions(findings)
    assert condition.startswith("A parabola in w_p may not fit (p = ")
    assert condition.endswith("), so only tried weights are compared.")


def test_an_outlier_is_named_with_the_answer_without_it() -> None:
    trials, cards = hill()
    scores = cards["19"].by_name()
    worse = {name: (s.value, s.value - 0.05, s.value + 0.05) for name, s in scores.items()}
    for name, by in ((ACCURACY, -0.2), ("heldout_completion_loss", 0.3)):
        worse[name] = (scores[name].value + by, 0.0, 1.0)
    cards["19"] = card(worse)
    of_scores, of_loss = conditions(findings_of(trials, cards))
    assert of_scores.startswith("Outlier: trial 19 (PLW 1, seed 1) is ")
    assert " points below what the other trials predict for multiple choice (p = " in of_scores
    assert ". Without it: best PLW is about 0.2" in of_scores
    # A loss that is too high is above what is predicted, although it counts as worse.
    assert of_loss.startswith("Held-out loss, outlier: trial 19 (PLW 1, seed 1) is 0.293 ")
    assert "nats per token above what the other trials predict for held-out completion" in of_loss


def test_runs_that_diverged_or_failed_are_named_with_weight_and_seed() -> None:
    diverged = [
        trial(1.0, seed=seed, state="failed", error="the gradient of step 3 is not finite (...)")
        for seed in (7, 8)
    ]
    lost = trial(0.5, seed=9, state="failed", error="worker died")
    assert conditions(findings_of(*hill(), *diverged, lost)) == [
        "Diverged: trials 10s7 (PLW 1, seed 7) and 10s8 (PLW 1, seed 8); they have no scores, so "
        "the answer is that without them.",
        "Failed: trial 05s9 (PLW 0.5, seed 9); it has no scores, so the answer is that without it.",
    ]


def test_of_many_failed_trials_six_are_named_and_the_rest_counted() -> None:
    lost = [trial(0.5, seed=seed, state="failed", error="worker died") for seed in range(10, 20)]
    [sentence] = conditions(findings_of(*hill(), *lost))
    assert "trials 05s10 (PLW 0.5, seed 10), 05s11" in sentence
    assert "05s15 (PLW 0.5, seed 15) and 4 more; they have no scores" in sentence


def test_failed_stopped_and_unfinished_trials_are_counted_and_not_scored() -> None:
    trials, cards = hill()
    unscored = [
        trial(0.02, state="failed", error="nan"),
        trial(0.03, state="training"),
        trial(0.04, state="stopped"),
        trial(0.06),
    ]
    # A card of a trial that failed is left over from before, and counts for nothing.
    cards = {**cards, unscored[0].id: card(DEMO[0.0])}
    findings = findings_of(trials, cards, *unscored)
    assert findings.trials.model_dump() == {
        "planned": 25,
        "done": 22,
        "failed": 1,
        "stopped": 1,
        "unfinished": 1,
        "scored": 21,
    }
    said = headline(findings)
    assert "from 21 of 25 trials of 7 weights with 3 seeds each. " in said
    assert said.endswith(
        "Of 25 trials, 1 failed and 1 stopped early and 1 unfinished and 1 without scores."
    )
    assert findings.plws == list(dict.fromkeys(t.prompt_loss_weight for t in trials))


def test_a_trial_that_lacks_a_group_does_not_count_overall() -> None:
    trials, cards = hill()
    scores = [s for s in cards["00"].scores if s.group != "long_generation"]
    cards["00"] = cards["00"].model_copy(update={"scores": scores})
    findings = findings_of(trials, cards)
    assert {verdict.group: verdict.num_trials for verdict in findings.verdicts} == {
        "overall": 20,
        "multiple_choice": 21,
        "short_generation": 21,
        "long_generation": 20,
        "heldout_completion_loss": 21,
    }
    assert "from 20 of 21 trials of 7 weights with 2 to 3 seeds each" in headline(findings)


def test_a_loss_that_is_not_finite_is_left_out_and_the_rest_still_told() -> None:
    trials, cards = hill()
    scores = [
        s.model_copy(update={"value": float("nan")}) if s.name == "heldout_completion_loss" else s
        for s in cards["20"].scores
    ]
    cards["20"] = cards["20"].model_copy(update={"scores": scores})
    found = {verdict.group: verdict.num_trials for verdict in findings_of(trials, cards).verdicts}
    assert (found["overall"], found["heldout_completion_loss"]) == (21, 20)


def test_sweep_without_scores_recommends_nothing() -> None:
    findings = analyse(sweep_record(["a", "b"]), [], {}, {})
    assert (findings.lead, findings.panels) == (None, [])
    assert findings.groups_not_measured == [
        "multiple_choice",
        "short_generation",
        "long_generation",
    ]
    assert headline(findings) == (
        "No PLW can be recommended: no trial has scores yet. Of 2 trials, 2 unfinished."
    )


def test_a_sweep_of_the_held_out_loss_alone_is_answered_in_nats() -> None:
    trials, cards = hill()
    cards = {
        key: found.model_copy(update={"scores": [s for s in found.scores if s.group is None]})
        for key, found in cards.items()
    }
    findings = findings_of(trials, cards)
    assert findings.scores is None
    said = headline(findings)
    assert said.startswith("Held-out completion loss: best PLW is about 0.2")
    assert " nats per token over PLW 0 " in said


def test_the_prompts_loss_selects_nothing(demo_sweep: SweepFolder) -> None:
    groups = {verdict.group for verdict in read_findings(demo_sweep).verdicts}
    assert "heldout_prompt_loss" not in groups


def test_a_sweep_in_which_plw_was_not_searched_says_so() -> None:
    trials, cards = [], {}
    for index, rate in enumerate((1e-5, 1e-4)):
        for seed in (0, 1):
            record = trial(0.1, seed=seed, searched={"optimizer.learning_rate": rate})
            trials.append(record)
            share = 0.5 + index / 10 + seed / 100
            cards[record.id] = card({ACCURACY: (share, share - 0.1, share + 0.1)})
    findings = findings_of(trials, cards)
    assert not findings.is_about_plw
    assert headline(findings) == (
        "PLW was 0.1 in every trial, so this sweep says nothing of it; what varied is "
        "optimizer.learning_rate. Of 2 settings optimizer.learning_rate 0.0001 had the highest "
        "multiple choice score (60.5, 95% interval 54.1 to 66.9), which as the best of several is "
        "flattered by chance."
    )


def test_normalization_modes_are_never_pooled() -> None:
    one, other = trial(0.1, seed=0), trial(0.1, seed=1)
    loss = {"prompt_loss_weight": 0.1, "normalization": "completion"}
    other = other.model_copy(update={"settings": other.settings | {"loss": loss}})
    cards = {t.id: card({ACCURACY: (0.5, 0.4, 0.6)}) for t in (one, other)}
    findings = findings_of([one, other], cards)
    (panel,) = findings.panels
    assert [point.seeds for series in panel.series for point in series.points] == [[0], [1]]
    assert {series.label for series in panel.series} == {
        "loss.normalization weights",
        "loss.normalization completion",
    }
    assert findings.normalizations == ["completion", "weights"]


def test_learning_rates_are_points_of_one_cell() -> None:
    trials = [
        trial(plw, seed=seed, searched={"optimizer.learning_rate": rate, "seed": seed})
        for plw in (0.0, 0.1)
        for rate in (1e-5, 1e-4)
        for seed in (0, 1)
    ]
    cards = {
        t.id: card({ACCURACY: (0.5 + index / 100, 0.4, 0.7)}) for index, t in enumerate(trials)
    }
    (panel,) = findings_of(trials, cards).panels
    (series,) = panel.series
    found = [(p.prompt_loss_weight, p.other_settings, p.seeds) for p in series.points]
    assert found == [
        (0.0, {"optimizer.learning_rate": 1e-5}, [0, 1]),
        (0.0, {"optimizer.learning_rate": 1e-4}, [0, 1]),
        (0.1, {"optimizer.learning_rate": 1e-5}, [0, 1]),
        (0.1, {"optimizer.learning_rate": 1e-4}, [0, 1]),
    ]


def test_panels_have_raw_means_and_the_fitted_curve_goes_through_them() -> None:
    panels = {panel.id: panel for panel in findings_of(*hill()).panels}
    for name, top in (("multiple_choice", 62), ("long_generation", 27), ("overall", 42)):
        panel = panels[name]
        (series,) = panel.series
        assert series.line is not None
        at = {
            round(place, 6): value
            for place, value in zip(series.line.w_p, series.line.value, strict=True)
        }
        assert max(at.values()) == pytest.approx(top, abs=1)
        assert at[0.5] == pytest.approx(series.points[3].value, abs=1)
        assert series.line.low[0] < series.line.value[0] < series.line.high[0]
    loss = panels["heldout_completion_loss"].series[0]
    assert loss.line is not None
    assert min(loss.line.value) == pytest.approx(2.5 - 0.62, abs=0.01)
    assert loss.line.low[0] < loss.line.value[0] < loss.line.high[0]


def test_points_are_less_their_seeds_level_and_their_intervals_within_seeds() -> None:
    [panel] = findings_of(*stepped()).panels
    assert panel.is_within_seeds
    first, second, *_ = panel.points
    # Means over all seeds are as scored, and so are the values of trials.
    assert first.value == pytest.approx(45, abs=0.2)
    assert second.value == pytest.approx(55, abs=0.2)
    assert [round(value) for value in first.values] == [40, 45, 50]
    for point in panel.points:
        assert point.ci_low is not None
        # Seeds differ by 5 points, which would make it 12 points either way.
        assert point.value - 2 < point.ci_low < point.value


def test_a_loss_is_less_its_seeds_level_too() -> None:
    trials, cards = stepped()
    for record in trials:
        value = 2 - cards[record.id].by_name()[ACCURACY].value
        cards[record.id] = card({"heldout_completion_loss": (value, value - 0.1, value + 0.1)})
    [panel] = findings_of(trials, cards).panels
    assert panel.points[0].value == pytest.approx(1.55, abs=0.002)
    assert panel.points[0].ci_low == pytest.approx(1.55, abs=0.02)


def test_the_line_says_what_it_is_and_joins_the_means_where_no_curve_fits() -> None:
    lines = {seeds: findings_of(*hill(seeds=seeds)).panels[0].series[0].line for seeds in (1, 3)}
    assert {seeds: line.method for seeds, line in lines.items() if line is not None} == {
        1: "assumed curve",
        3: "curve",
    }
    [panel] = findings_of(*stepped()).panels
    line = panel.series[0].line
    assert line is not None
    assert line.method == "means"
    assert line.w_p == pytest.approx([point.w_p for point in panel.points])
    assert line.value == pytest.approx([point.value for point in panel.points])


def test_the_best_weight_is_marked_only_where_an_effect_is_shown() -> None:
    best = findings_of(*hill()).panels[0].best
    assert best is not None
    assert (round(best.plw or 0, 2), best.nearest_plw, best.tied_plws) == (0.24, 0.25, [])
    tied = findings_of(*stepped()).panels[0].best
    assert tied is not None
    assert tied.tied_plws == [0.01, 0.05, 0.1, 0.5, 1.0]
    assert findings_of(*hill(noise=1.0)).panels[0].best is None


def test_untuned_scores_are_told_on_the_panels_scale() -> None:
    trials, cards = hill()
    findings = analyse(sweep_record([t.id for t in trials]), trials, cards, {BASE: card(UNTUNED)})
    untuned = {panel.id: panel.untuned for panel in findings.panels}
    assert untuned["multiple_choice"] is not None
    assert untuned["multiple_choice"].value == pytest.approx(56)
    assert untuned["overall"] is not None
    assert untuned["overall"].value == pytest.approx((56 + 0 + 12) / 3)


def test_a_trial_of_each_model_is_compared_within_its_model_alone(tmp_path: Path) -> None:
    findings = read_findings(write_two_models(tmp_path / "s"))
    (panel,) = findings.panels
    assert panel.is_relative
    assert panel.untuned is None
    found = {
        series.label: [round(point.value, 6) for point in series.points] for series in panel.series
    }
    assert found == {"model weak": [-10, 10], "model strong": [-10, 10]}
    assert findings.varied == []
    assert findings.is_about_plw


def test_what_trials_recorded_of_the_mechanism_is_a_panel_and_the_rest_says_how_to_get_it() -> None:
    trials, cards = hill()
    trials = [t.model_copy(update={"distance": 2 + t.prompt_loss_weight}) for t in trials]
    findings = findings_of(trials, cards)
    (distance,) = findings.of_kind("mechanism")
    assert [point.value for point in distance.points][::6] == [2.0, 3.0]
    assert findings.not_recorded == [
        "Loss stability was not recorded: train for ten logged steps or more.",
        "Memorisation was not recorded: set evals.memorisation.",
        "Generation length was not recorded: set evals.memorisation.",
    ]


def test_regularisers_are_compared_with_none_at_the_lowest_weight() -> None:
    trials, cards = [], {}
    for decay, gain in ((0.0, 0.0), (0.1, 0.05)):
        for plw in (0.0, 1.0):
            for seed in (0, 1):
                record = trial(plw, seed=seed, searched={"optimizer.weight_decay": decay})
                trials.append(record)
                share = 0.5 + gain + plw / 10 + seed / 100
                cards[record.id] = card({ACCURACY: (share, share - 0.1, share + 0.1)})
    found = findings_of(trials, cards).regularisers
    assert [(one.label, one.prompt_loss_weight) for one in found] == [
        ("none", 0.0),
        ("none", 1.0),
        ("weight decay 0.1", 0.0),
        ("weight decay 0.1", 1.0),
    ]
    assert [one.difference for one in found] == [None, *(pytest.approx(d) for d in (10, 5, 15))]
    # Both means have a standard error of 0.5: Welch has 2 degrees of freedom, t = 4.3027.
    assert found[2].difference_high == pytest.approx(5 + 4.3027 * 0.5**0.5, abs=1e-3)


def test_gpu_hours_and_money_are_told_where_the_spec_allows_it() -> None:
    trials, cards = hill()
    trials = [t.model_copy(update={"busy_seconds": 1800, "scorer_seconds": 360}) for t in trials]
    unknown = findings_of(trials, cards).cost
    assert (unknown.held_hours, unknown.gpu_hours, unknown.money) == (10.5, None, None)
    spec = sweep_record([]).spec | {"resources": {"workers_per_trial": 2, "price_per_gpu_hour": 3}}
    cost = findings_of(trials, cards, spec=spec).cost
    assert cost.gpu_hours == pytest.approx(2 * 10.5 + 2.1)
    assert cost.money == pytest.approx(3 * 23.1)
    spec = spec | {"resources": {"gpus_per_worker": 0, "workers_per_trial": 2}}
    assert findings_of(trials, cards, spec=spec).cost.gpu_hours == 0


def test_findings_survive_json(tmp_path: Path) -> None:
    findings = read_findings(write_hill(tmp_path / "s"))
    assert Findings.model_validate_json(findings.model_dump_json()) == findings


def test_a_search_over_many_other_settings_ends_in_a_cannot_say_at_once() -> None:
    trials, cards = [], {}
    for index in range(60):
        smoothing = index / 1000
        record = trial(index / 60, searched={"loss.label_smoothing": smoothing})
        trials.append(record)
        cards[record.id] = card(DEMO[0.1])
    said = headline(findings_of(trials, cards))
    assert "60 trials of 60 settings beside PLW leave hardly two that differ in PLW alone" in said
    assert "Run these 4 next" in said


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.781, "share of items", "0.78"),
        (0.781, "points", "0.8"),
        (24.13, "chrF", "24.1"),
        (2.0314, "nats per token", "2.031"),
        (None, "chrF", "-"),
    ],
)
def test_values_show_the_digits_of_their_scale(
    value: float | None, unit: str, expected: str
) -> None:
    assert format_value(value, unit) == expected


def test_every_measure_of_the_tests_has_a_scale() -> None:
    assert {group for group, _, _ in MEASURES.values() if group} == {
        "multiple_choice",
        "short_generation",
        "long_generation",
    }
