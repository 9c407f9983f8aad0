"""Findings, headline and conditions of a sweep."""

import re
from pathlib import Path

import pytest

from orchestrator.analysis.findings import Findings, format_value
from orchestrator.analysis.headline import conditions, headline
from orchestrator.analysis.sweep_findings import analyse, read_findings
from orchestrator.foundation.plw_scale import w_p
from orchestrator.record.folder import SweepFolder, TrialRecord
from orchestrator.report.tables import verdict_context
from tests.orchestrator.analysis.known_findings import ACCURACY, findings_of, stepped
from tests.orchestrator.sweeps import (
    DEMO,
    MEASURES,
    card,
    hill,
    sweep_record,
    trial,
    write_hill,
)


@pytest.mark.parametrize(("plw", "expected"), [(0.0, 0.0), (0.1, 0.5), (1.0, 1.0)])
def test_w_p_maps_a_tenth_to_a_half(plw: float, expected: float) -> None:
    assert w_p(plw) == pytest.approx(expected, abs=1e-6)


def test_headline_has_best_plw_gain_and_counts() -> None:
    text = headline(findings_of(*hill()))
    assert text == (
        "Overall: best PLW 0.24 (95% interval 0.1 to 0.27; nearest tried: 0.25). Gain over PLW 0: "
        "10.9 points (95% interval 7.5 to 14.4), corrected for selection. Based on 21 trials (7 "
        "weights, 3 seeds each)."
    )


def test_each_group_and_the_held_out_loss_have_a_verdict() -> None:
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


def test_single_seed_of_four_weights_asks_for_a_second_seed(
    demo_sweep: SweepFolder,
) -> None:
    findings = read_findings(demo_sweep)
    text = headline(findings)
    assert text.startswith(
        "Overall: cannot say: 1 residual degree of freedom to estimate noise, 3 needed; add a "
        "second seed of each weight. Based on 4 trials (4 weights, 1 seed each). Run these 4 "
        "trials next: PLW 0, 0.01, 0.1 and 1 with seed 1."
    )
    assert findings.lead is not None
    assert len(findings.lead.next_runs) == 4
    assert findings.single_seed
    assert findings.generation_ratio == 0.0421


def test_headline_compares_two_weights() -> None:
    assert headline(findings_of(*hill((0.0, 1.0)))).startswith(
        "Overall: PLW 1 is better than PLW 0 by 7.6 points. Gain over PLW 0: 7.6 points (95% "
        "interval "
    )


def test_headline_with_too_few_weights_or_seeds_says_what_is_missing() -> None:
    two = headline(findings_of(*hill((0.0, 1.0), seeds=1)))
    assert "two weights need 2 residual degrees of freedom to estimate noise" in two
    three = headline(findings_of(*hill((0.0, 0.1, 1.0), seeds=1)))
    assert "no residual degrees of freedom to estimate noise; add a second seed of each" in three
    one = headline(findings_of(*hill((0.1,), seeds=1)))
    assert "at least two weights with scores are needed, got 1" in one


def test_headline_from_single_seeds_states_the_assumed_parabola() -> None:
    findings = findings_of(*hill(seeds=1))
    assert headline(findings).endswith(
        "Based on 7 trials (7 weights, 1 seed each), assuming a parabola in w_p."
    )
    assert conditions(findings) == [
        "Too few weights are repeated to test the parabola and equal noise at all weights; "
        "run a second seed of each."
    ]


def test_fitting_curve_has_no_conditions() -> None:
    assert conditions(findings_of(*hill())) == []


def test_lack_of_fit_is_a_condition() -> None:
    findings = findings_of(*stepped())
    [condition] = conditions(findings)
    assert condition.startswith("A parabola in w_p may not fit (p < 0.001")
    assert condition.endswith("), so only tried weights are compared.")


def test_outlier_is_a_condition_with_the_verdict_without_it() -> None:
    trials, cards = hill()
    scores = cards["19"].by_name()
    worse = {name: (s.value, s.value - 0.05, s.value + 0.05) for name, s in scores.items()}
    for name, by in ((ACCURACY, -0.2), ("heldout_completion_loss", 0.3)):
        worse[name] = (scores[name].value + by, 0.0, 1.0)
    cards["19"] = card(worse)
    of_scores, of_loss = conditions(findings_of(trials, cards))
    assert of_scores.startswith("Outlier: trial 19 (PLW 1, seed 1) is ")
    assert " points below the prediction from the other trials for multiple choice " in of_scores
    assert ". Without it: best PLW 0.2" in of_scores
    # A high loss is reported as above the prediction, although it is worse.
    assert of_loss.startswith("Held-out loss, outlier: trial 19 (PLW 1, seed 1) is 0.293 ")
    assert "nats per token above the prediction from the other trials for held-out" in of_loss


def test_diverged_and_failed_trials_are_conditions() -> None:
    diverged = [
        trial(1.0, seed=seed, state="failed", error="the gradient of step 3 is not finite (...)")
        for seed in (7, 8)
    ]
    failed = trial(0.5, seed=9, state="failed", error="worker died")
    assert conditions(findings_of(*hill(), *diverged, failed)) == [
        "Diverged: trials 10s7 (PLW 1, seed 7) and 10s8 (PLW 1, seed 8). They have no scores; the "
        "result excludes them.",
        "Failed: trial 05s9 (PLW 0.5, seed 9). It has no scores; the result excludes it.",
    ]


def test_at_most_six_failed_trials_are_named() -> None:
    failed = [trial(0.5, seed=seed, state="failed", error="worker died") for seed in range(10, 20)]
    [sentence] = conditions(findings_of(*hill(), *failed))
    assert "trials 05s10 (PLW 0.5, seed 10), 05s11" in sentence
    assert "05s15 (PLW 0.5, seed 15) and 4 more. They have no scores" in sentence


def test_failed_stopped_and_unfinished_trials_are_counted_and_not_scored() -> None:
    trials, cards = hill()
    unscored = [
        trial(0.02, state="failed", error="nan"),
        trial(0.03, state="training"),
        trial(0.04, state="stopped"),
        trial(0.06),
    ]
    # A card of a failed trial is left over from an earlier attempt and is ignored.
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
    text = headline(findings)
    assert text.endswith(
        "Based on 21 of 25 trials (7 weights, 3 seeds each). Of 25 trials: 1 failed, 1 stopped "
        "early, 1 unfinished, 1 without scores."
    )
    assert findings.plws == list(dict.fromkeys(t.prompt_loss_weight for t in trials))


def search_with_own_rates(*extra: TrialRecord) -> Findings:
    """Return findings of six weights, each at its own learning rate."""
    losses = {0.0: 1.21, 0.01: 1.41, 0.1: 1.3, 0.3: 1.27, 0.6: 1.25, 1.0: 1.28}
    trials, cards = [], {}
    for number, (plw, loss) in enumerate(losses.items()):
        trials.append(trial(plw, searched={"optimizer.learning_rate": (number + 1) * 1e-5}))
        cards[trials[-1].id] = card({"heldout_completion_loss": (loss, None, None)})
    return findings_of(trials, cards, *extra)


def test_a_search_without_an_answer_names_its_best_setting() -> None:
    found = search_with_own_rates()
    assert found.lead is not None
    assert found.lead.lead.kind == "cannot say"
    assert conditions(found)[0] == (
        "Of 6 settings, PLW 0 (optimizer.learning_rate 1e-05) had the lowest held-out completion "
        "loss (1.210, 95% interval 1.112 to 1.308). The best of several settings is biased by "
        "selection."
    )


def test_unfinished_trials_come_before_other_trials() -> None:
    assert "Run these 6 trials next at learning rate 4e-05" in headline(search_with_own_rates())
    unfinished = search_with_own_rates(trial(0.5, state="interrupted"))
    assert "trials next" not in headline(unfinished)
    assert verdict_context(unfinished)["next_runs"] == []


def test_next_trials_that_hardly_help_are_named_as_such() -> None:
    text = headline(findings_of(*hill(bend=0.0, noise=0.03)))
    assert text.startswith("Overall: cannot say: no significant difference between weights")
    assert re.search(
        r"Run these 7 trials next: .* with seed 3\. With these trials, if the effect is as "
        r"estimated, \d+% of 100 simulated studies name a best weight", text
    )  # fmt: skip


def test_trial_without_a_group_is_not_in_the_overall_verdict() -> None:
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
    assert "Based on 20 of 21 trials (7 weights, 2 to 3 seeds each)" in headline(findings)


def test_loss_that_is_not_finite_is_ignored() -> None:
    trials, cards = hill()
    scores = [
        s.model_copy(update={"value": float("nan")}) if s.name == "heldout_completion_loss" else s
        for s in cards["20"].scores
    ]
    cards["20"] = cards["20"].model_copy(update={"scores": scores})
    found = {verdict.group: verdict.num_trials for verdict in findings_of(trials, cards).verdicts}
    assert (found["overall"], found["heldout_completion_loss"]) == (21, 20)


def test_sweep_without_scores_has_no_result() -> None:
    findings = analyse(sweep_record(["a", "b"]), [], {}, {})
    assert (findings.lead, findings.panels) == (None, [])
    assert findings.groups_not_measured == [
        "multiple_choice",
        "short_generation",
        "long_generation",
    ]
    assert headline(findings) == ("No result yet: no trial has scores. Of 2 trials: 2 unfinished.")


def test_sweep_with_held_out_loss_only_is_reported_in_nats() -> None:
    trials, cards = hill()
    cards = {
        key: found.model_copy(update={"scores": [s for s in found.scores if s.group is None]})
        for key, found in cards.items()
    }
    findings = findings_of(trials, cards)
    assert findings.scores is None
    text = headline(findings)
    assert text.startswith("Held-out completion loss: best PLW 0.2")
    assert "Gain over PLW 0: 0.127 nats per token " in text


def test_prompt_loss_has_no_verdict(demo_sweep: SweepFolder) -> None:
    groups = {verdict.group for verdict in read_findings(demo_sweep).verdicts}
    assert "heldout_prompt_loss" not in groups


def test_headline_of_constant_plw() -> None:
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
        "PLW was 0.1 in every trial, so this sweep does not show its effect. Varied: "
        "optimizer.learning_rate. Of 2 settings, optimizer.learning_rate 0.0001 had the highest "
        "multiple choice score (60.5, 95% interval 54.1 to 66.9). The best of several settings is "
        "biased by selection."
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


def test_gpu_hours_and_money_need_prices_or_gpus_in_the_spec() -> None:
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


def test_search_over_many_other_settings_is_undecided() -> None:
    trials, cards = [], {}
    for index in range(60):
        smoothing = index / 1000
        record = trial(index / 60, searched={"loss.label_smoothing": smoothing})
        trials.append(record)
        cards[record.id] = card(DEMO[0.1])
    text = headline(findings_of(trials, cards))
    assert "60 trials have 60 settings other than PLW, and almost no two differ in PLW" in text
    assert "Run these 4 trials next" in text


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
def test_values_have_the_decimals_of_their_unit(
    value: float | None, unit: str, expected: str
) -> None:
    assert format_value(value, unit) == expected


def test_every_measure_of_the_tests_has_a_scale() -> None:
    assert {group for group, _, _ in MEASURES.values() if group} == {
        "multiple_choice",
        "short_generation",
        "long_generation",
    }
