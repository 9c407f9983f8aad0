"""Tests of the answer's description, tags and metrics, without a store."""

from itertools import product

from evals.results.scores import ScoreCard
from orchestrator.analysis.findings import Findings
from orchestrator.analysis.sweep_findings import analyse
from orchestrator.record.folder import TrialRecord
from orchestrator.tracking.answer import answer_metrics, answer_note, answer_tags
from tests.orchestrator.sweeps import card, hill, sweep_record, trial


def findings_of(trials: list[TrialRecord], cards: dict[str, ScoreCard]) -> Findings:
    return analyse(sweep_record([one.id for one in trials]), trials, cards, {})


def stepped() -> Findings:
    """Return findings where PLW 0 is 10 points below five equal weights, and one trial diverged."""
    trials, cards = [], {}
    for number, (plw, seed) in enumerate(product((0.0, 0.01, 0.05, 0.1, 0.5, 1.0), range(3))):
        record = trial(plw, seed=seed, searched={"seed": seed})
        trials.append(record)
        share = 0.4 + 0.1 * (plw > 0) + 0.002 * ((7 * number) % 5 - 2)
        cards[record.id] = card({"quiz.acc": (share, share - 0.1, share + 0.1)})
    failed = trial(0.7, seed=2, state="failed", error="the gradient of step 3 is not finite")
    return findings_of([*trials, failed], cards)


def test_tied_weights_are_reported_as_one_interval() -> None:
    metrics = answer_metrics(stepped())
    assert metrics["interval/answer_multiple_choice_best_plw_ci_low"] == 0.01
    assert metrics["interval/answer_multiple_choice_best_plw_ci_high"] == 1.0
    assert metrics["answer/multiple_choice_gain"] > 9
    assert answer_tags(stepped())["answer_multiple_choice"].startswith(
        "tied for best: the 5 weights from 0.01 to 1"
    )


def test_the_note_lists_fit_and_diverged_trials_below_the_headline() -> None:
    headline, fit, lost, table, legend, rest = answer_note(stepped()).split("\n\n")
    assert headline.startswith("Multiple choice: tied for best: ")
    assert fit.startswith("A parabola in w_p may not fit (p < 0.001")
    assert lost == (
        "Diverged: trial 07s2 (PLW 0.7, seed 2). It has no scores; the result excludes it."
    )
    assert table.startswith("| Scores | Verdict | Gain (95%) | p | Trials |\n|")
    assert legend.startswith("Gain: ")
    assert rest == "The whole report is `report.html` among the artifacts."


def test_a_verdict_without_a_weight_has_only_a_p_value() -> None:
    metrics = answer_metrics(findings_of(*hill(noise=1.0)))
    assert [name for name in metrics if "overall" in name] == ["answer/overall_p_value"]


def test_the_lowest_weight_has_no_gain_over_itself() -> None:
    trials, cards = hill(bend=0.0, noise=0.001)
    for record in trials:
        share = 0.6 - 0.1 * record.prompt_loss_weight**0.30103
        share += 0.001 * (int(record.id) * 7 % 5)
        cards[record.id] = card({"quiz.acc": (share, share - 0.1, share + 0.1)})
    metrics = answer_metrics(findings_of(trials, cards))
    assert metrics["answer/multiple_choice_best_plw"] == 0
    assert "answer/multiple_choice_gain" not in metrics
