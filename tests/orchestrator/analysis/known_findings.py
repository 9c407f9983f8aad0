"""Sweeps with known scores, and their findings."""

from itertools import product
from typing import Any

from evals.results.scores import ScoreCard
from orchestrator.analysis.findings import Findings
from orchestrator.analysis.sweep_findings import analyse
from orchestrator.record.folder import TrialRecord
from tests.orchestrator.sweeps import card, sweep_record, trial

ACCURACY = "quiz.acc"


def findings_of(
    trials: list[TrialRecord], cards: dict[str, ScoreCard], *unscored: TrialRecord, **changes: Any
) -> Findings:
    everything = [*trials, *unscored]
    return analyse(sweep_record([t.id for t in everything], **changes), everything, cards, {})


def stepped() -> tuple[list[TrialRecord], dict[str, ScoreCard]]:
    """Three seeds of six weights: PLW 0 is 10 points worse than the other, equal ones."""
    trials, cards = [], {}
    for number, (plw, seed) in enumerate(product((0.0, 0.01, 0.05, 0.1, 0.5, 1.0), range(3))):
        record = trial(plw, seed=seed, searched={"seed": seed})
        trials.append(record)
        # Seeds differ by 5 points; the residuals are up to 0.4 points.
        share = 0.4 + 0.1 * (plw > 0) + 0.05 * seed + 0.002 * ((number * 7) % 5 - 2)
        cards[record.id] = card({ACCURACY: (share, share - 0.1, share + 0.1)})
    return trials, cards
