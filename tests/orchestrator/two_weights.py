"""Sweeps over prompt and completion weight with a known truth."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evals.results.scores import ScoreCard
from orchestrator.record.folder import SweepFolder, TrialRecord
from orchestrator.statistics.weight_trials import WeightTrial
from tests.orchestrator.sweeps import card, sweep_record, trial, write_sweep

PLW, COMPLETION = "loss.prompt_loss_weight", "loss.role_weights.completion"
Truth = Callable[[float, float], float]
PROMPTS = (0.0, 0.1, 0.2, 0.4)
COMPLETIONS = (0.25, 0.5, 1.0)


def ratio_alone(prompt: float, completion: float) -> float:
    """Return 40 points plus a hill of 4 points over the ratio, with its maximum at 0.2."""
    return 40 - 100 * (min(prompt / completion, 0.4) - 0.2) ** 2


def product(prompt: float, completion: float) -> float:
    """Return a score that depends on more than the ratio: pairs of equal ratio differ."""
    return 40 + 8 * prompt * completion


def grid_trials(
    truth: Truth,
    *,
    prompts: Sequence[float] = PROMPTS,
    completions: Sequence[float] = COMPLETIONS,
    seeds: int = 3,
    noise: float = 0.3,
    seed_sd: float = 2.0,
    seed: int = 0,
) -> list[WeightTrial]:
    """Return a trial for each pair and seed: truth + level of the seed + noise, in points."""
    rng = random.Random(seed)
    level = [rng.gauss(0, seed_sd) for _ in range(seeds)]
    return [
        WeightTrial(
            prompt_weight=prompt,
            completion_weight=completion,
            seed=str(number),
            score=truth(prompt, completion) + level[number] + rng.gauss(0, noise),
        )
        for prompt in prompts
        for completion in completions
        if prompt or completion
        for number in range(seeds)
    ]


def make_records(
    trials: Sequence[WeightTrial], **searched: Any
) -> tuple[list[TrialRecord], dict[str, ScoreCard]]:
    """Return records and cards of one multiple choice benchmark with the trials' scores."""
    records, cards = [], {}
    for number, one in enumerate(trials):
        settings = {
            "loss.normalization": "completion",
            **searched,
            COMPLETION: one.completion_weight,
        }
        record = trial(one.prompt_weight, seed=int(one.seed), searched=settings)
        record = record.model_copy(update={"id": f"{number:03d}"})
        records.append(record)
        share = one.score / 100
        cards[record.id] = card({"quiz.acc": (share, share - 0.05, share + 0.05)})
    return records, cards


def write_two_weights(root: Path, trials: Sequence[WeightTrial], **searched: Any) -> SweepFolder:
    """Write the folder of a finished sweep over both weights."""
    records, cards = make_records(trials, **searched)
    return write_sweep(root, records, cards, spec=sweep_record([]).spec)
