"""What MLflow gets of an answer, without a store."""

from itertools import product

from evals.results.scores import ScoreCard
from orchestrator.analysis.answer import analyse
from orchestrator.analysis.findings import Findings
from orchestrator.record.folder import TrialRecord
from orchestrator.tracking.answer import answer_metrics, answer_note, answer_tags
from tests.orchestrator.sweeps import card, hill, sweep_record, trial


def findings_of(trials: list[TrialRecord], cards: dict[str, ScoreCard]) -> Findings:
    return analyse(sweep_record([one.id for one in trials]), trials, cards, {})


def stepped() -> Findings:
    """PLW 0 is 10 points worse than five others, which are alike; one more trial diverged."""
    trials, cards = [], {}
    for number, (plw, seed) in enumerate(product((0.0, 0.01, 0.05, 0.1, 0.5, 1.0), range(3))):
        record = trial(plw, seed=seed, searched={"seed": seed})
        trials.append(record)
        share = 0.4 + 0.1 * (plw > 0) + 0.002 * ((7 * number) % 5 - 2)
        cards[record.id] = card({"multiple_choice_accuracy": (share, share - 0.1, share + 0.1)})
    failed = trial(0.7, seed=2, state="failed", error="the gradient of step 3 is not finite")
    return findings_of([*trials, failed], cards)


def test_tied_weights_are_an_interval_from_the_lowest_to_the_highest() -> None:
    metrics = answer_metrics(stepped())
    assert metrics["answer_multiple_choice_best_plw_ci_low"] == 0.01
    assert metrics["answer_multiple_choice_best_plw_ci_high"] == 1.0
    assert metrics["answer_multiple_choice_gain"] > 9
    assert answer_tags(stepped())["answer_multiple_choice"].startswith(
        "tied: no difference is shown between the 5 weights 0.01 to 1"
    )


def test_the_note_has_fit_and_lost_trials_below_the_headline() -> None:
    headline, fit, lost, table, legend, rest = answer_note(stepped()).split("\n\n")
    assert headline.startswith("Multiple choice: tied: ")
    assert fit.startswith("A parabola in w_p may not fit (p = ")
    assert lost == (
        "Diverged: trial 07s2 (PLW 0.7, seed 2); it has no scores, so the answer is that without "
        "it."
    )
    assert table.startswith("| Scores | Verdict | Gain (95%) | p | Trials |\n|")
    assert legend.startswith("Gain: ")
    assert rest == "The whole report is `report.html` among the artifacts."


def test_a_verdict_that_names_no_weight_has_its_p_value_alone() -> None:
    metrics = answer_metrics(findings_of(*hill(noise=1.0)))
    assert [name for name in metrics if name.startswith("answer_overall")] == [
        "answer_overall_p_value"
    ]


def test_the_lowest_weight_has_no_gain_over_itself() -> None:
    trials, cards = hill(bend=0.0, noise=0.001)
    for record in trials:
        share = 0.6 - 0.1 * record.prompt_loss_weight**0.30103
        share += 0.001 * (int(record.id) * 7 % 5)
        cards[record.id] = card({"multiple_choice_accuracy": (share, share - 0.1, share + 0.1)})
    metrics = answer_metrics(findings_of(trials, cards))
    assert metrics["answer_multiple_choice_best_plw"] == 0
    assert "answer_multiple_choice_gain" not in metrics
