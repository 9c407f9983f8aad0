"""Write the folder of a sweep, finished or not, without training."""

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.config import Group
from evals.results.scores import Score, ScoreCard
from orchestrator.foundation.plw_scale import w_p
from orchestrator.record.baselines import BaselineRecord
from orchestrator.record.folder import State, SweepFolder, SweepRecord, TrialRecord
from orchestrator.spec.setting_fields import with_values
from orchestrator.trials.sweep import SweepOutcome
from trainers.config import TrainConfig
from trainers.foundation.files import write_json, write_text

# value, low, high
Interval = tuple[float, float, float]

MEASURES: dict[str, tuple[Group | None, bool, str]] = {
    "quiz.acc": ("multiple_choice", True, "share of items"),
    "answers.exact_match": ("short_generation", True, "share of items"),
    "essays.chrf": ("long_generation", True, "chrF"),
    "heldout_completion_loss": (None, False, "nats per token"),
    "heldout_prompt_loss": (None, False, "nats per token"),
}
# The base that every trial has by default.
BASE = "0a1b2c3d"
START = 1_790_000_000.0

DEMO: dict[float, dict[str, Interval]] = {
    0.0: {
        "quiz.acc": (0.75, 0.632, 0.840),
        "answers.exact_match": (0.31, 0.211, 0.434),
        "essays.chrf": (24.1, 21.0, 27.4),
        "heldout_completion_loss": (2.031, 1.812, 2.262),
        "heldout_prompt_loss": (4.120, 3.900, 4.350),
    },
    0.01: {
        "quiz.acc": (0.78, 0.664, 0.866),
        "answers.exact_match": (0.33, 0.225, 0.451),
        "essays.chrf": (25.3, 22.0, 28.5),
        "heldout_completion_loss": (2.012, 1.795, 2.240),
        "heldout_prompt_loss": (3.210, 3.010, 3.400),
    },
    0.1: {
        "quiz.acc": (0.77, 0.650, 0.855),
        "answers.exact_match": (0.28, 0.186, 0.402),
        "essays.chrf": (29.8, 26.4, 33.0),
        "heldout_completion_loss": (2.104, 1.880, 2.330),
        "heldout_prompt_loss": (2.650, 2.480, 2.830),
    },
    1.0: {
        "quiz.acc": (0.64, 0.518, 0.746),
        "answers.exact_match": (0.19, 0.111, 0.302),
        "essays.chrf": (31.2, 27.9, 34.6),
        "heldout_completion_loss": (2.611, 2.370, 2.860),
        "heldout_prompt_loss": (2.310, 2.150, 2.470),
    },
}
UNTUNED: dict[str, Interval] = {
    "quiz.acc": (0.56, 0.441, 0.677),
    "answers.exact_match": (0.0, 0.0, 0.057),
    "essays.chrf": (12.0, 10.1, 14.2),
    "heldout_completion_loss": (5.301, 4.900, 5.720),
    "heldout_prompt_loss": (4.402, 4.180, 4.610),
}


def score(name: str, interval: tuple[float, float | None, float | None], items: int = 64) -> Score:
    group, higher_is_better, unit = MEASURES[name]
    return Score(
        name=name,
        group=group,
        value=interval[0],
        standard_error=0.05,
        ci_low=interval[1],
        ci_high=interval[2],
        num_items=items,
        higher_is_better=higher_is_better,
        unit=unit,
        interval_method="wilson",
    )


def card(scores: Mapping[str, tuple[float, float | None, float | None]]) -> ScoreCard:
    return ScoreCard(
        model_path="model",
        scores=[score(name, interval) for name, interval in scores.items()],
        signature={"version": 1},
        seconds=31.0,
    )


def trial(
    plw: float,
    *,
    seed: int = 0,
    state: State = "done",
    error: str | None = None,
    searched: Mapping[str, Any] | None = None,
    base: str = BASE,
) -> TrialRecord:
    other = dict(searched or {})
    settings = TrainConfig.model_validate(
        {
            "model": {"path": "demo:smollm2-135m-instruct"},
            "data": {"path": "demo:python-docs-short"},
            "loss": {"prompt_loss_weight": plw},
            "optimizer": {"learning_rate": other.get("optimizer.learning_rate", 1e-4)},
            "schedule": {"steps": 48},
            "seed": seed,
        }
    ).model_dump(mode="json")
    # As in a real record, searched settings are part of the trial's settings.
    settings = with_values(settings, other)
    has_ended = state in ("done", "stopped", "failed")
    other_id = "".join(f"-{value}" for value in other.values())
    return TrialRecord(
        id=f"{str(plw).replace('.', '')}s{seed}{other_id}",
        base=base,
        settings=settings,
        searched={"loss.prompt_loss_weight": plw, **other},
        state=state,
        attempts=0 if state == "pending" else 1,
        error=error,
        started_at=None if state == "pending" else "2026-11-22T16:00:00+00:00",
        ended_at="2026-11-22T16:04:10+00:00" if has_ended else None,
        total_steps=48,
        train_seconds=201.4 if state == "done" else None,
        eval_seconds=31.2 if state == "done" else None,
        tokens_per_second=1234.5 if state == "done" else None,
        final_completion_loss=1.95 if state == "done" else None,
        final_prompt_loss=2.75 if state == "done" else None,
        device="NVIDIA H200" if state == "done" else None,
    )


def base_record(
    key: str = BASE,
    *,
    model: str = "demo:smollm2-135m-instruct",
    data: str = "demo:python-docs-short",
    stats: Mapping[str, Any] | None = None,
) -> BaselineRecord:
    ratio = {"generation_ratio": {"of_means": 0.0421, "mean_of_ratios": 0.051}}
    return BaselineRecord(
        key=key,
        template="plain",
        max_length=128,
        model={
            "path": model,
            "revision": None,
            "fingerprint": "0f1e2d3c",
            "num_parameters": 134_515_008,
            "note": "dequantised from a 4-bit file, already instruction-tuned",
        },
        data=[
            {
                "path": data,
                "split": "train",
                "fingerprint": "a1b2c3d4",
                "stats": dict(ratio if stats is None else stats),
            }
        ],
    )


def sweep_record(trial_ids: Sequence[str], **changes: Any) -> SweepRecord:
    fields: dict[str, Any] = {
        "name": "demo",
        "created_at": "2026-11-22T15:59:00+00:00",
        "spec": {
            "name": "demo",
            "model": {"path": "demo:smollm2-135m-instruct"},
            "search": {"method": "grid", "space": {"loss.prompt_loss_weight": [0, 0.01, 0.1, 1]}},
            "tracking": {"uri": None, "experiment": None},
        },
        "spec_path": "sweep.yaml",
        "trial_ids": list(trial_ids),
        "bases": [base_record()],
        "environment": {
            "command": "plw sweep sweep.yaml",
            "commit": "57793e2",
            "versions": {"torch": "2.9.0", "deepspeed": "0.19.1"},
            "hardware": {"cpus": 2, "gpus": []},
        },
    }
    return SweepRecord.model_validate({**fields, **changes})


def write_metrics(folder: SweepFolder, trial_id: str, steps: range, start: float = START) -> None:
    """Write metric lines as the trainer does, one second apart."""
    lines = [
        {
            "step": step,
            "total_steps": 48,
            "time": start + step,
            "loss": 4.0 / step,
            "completion_loss": 3.0 / step,
            "prompt_loss": None,
            "learning_rate": 1e-4,
            "grad_norm": 1.0,
            "num_tokens": 4096,
            "tokens_per_second": 1234.5,
        }
        for step in steps
    ]
    write_text(folder.metrics(trial_id), "".join(json.dumps(line) + "\n" for line in lines))


def write_card(root: Path, scores: ScoreCard) -> None:
    write_json(root / "scores.json", scores.model_dump(mode="json"))
    write_text(root / "samples.jsonl", '{"measure": "heldout", "id": "a", "value": 2.0}\n')


def write_sweep(
    root: Path,
    trials: Sequence[TrialRecord],
    cards: Mapping[str, ScoreCard],
    untuned: ScoreCard | None = None,
    **changes: Any,
) -> SweepFolder:
    folder = SweepFolder(root)
    folder.write_sweep(sweep_record([record.id for record in trials], **changes))
    for record in trials:
        if record.state != "pending":
            folder.write_trial(record)
            write_text(folder.trial(record.id) / "log.txt", "loading the model\n")
            write_metrics(folder, record.id, range(1, 5))
        if record.id in cards:
            write_card(folder.trial(record.id), cards[record.id])
    if untuned is not None:
        write_card(folder.baseline(BASE), untuned)
    return folder


OTHER_BASE = "9f8e7d6c"


def write_two_models(root: Path) -> SweepFolder:
    """Write PLW 0 and 0.1 on two models; one is far better, also before tuning."""
    bases = [base_record(model="/models/weak"), base_record(OTHER_BASE, model="/models/strong")]
    trials, cards = [], {}
    for base, shift in zip(bases, (0.0, 0.2), strict=True):
        for plw, value in ((0.0, 0.3), (0.1, 0.5)):
            record = trial(
                plw, searched={"model.path": base.model["path"]}, base=base.key
            ).model_copy(update={"id": f"{plw:g}-{base.key}"})
            trials.append(record)
            center = value + shift
            interval = (center, center - 0.05, center + 0.05)
            cards[record.id] = card({"quiz.acc": interval})
    untuned = card({"quiz.acc": (0.4, 0.35, 0.44)})
    folder = write_sweep(root, trials, cards, untuned, bases=bases)
    better = card({"quiz.acc": (0.68, 0.6, 0.8)})
    write_card(folder.baseline(OTHER_BASE), better)
    return folder


def write_demo(root: Path) -> SweepFolder:
    """Write a sweep like the demo: four PLWs, one seed, everything scored."""
    trials = [trial(plw) for plw in DEMO]
    cards = {record.id: card(DEMO[record.prompt_loss_weight]) for record in trials}
    return write_sweep(root, trials, cards, card(UNTUNED))


HILL_PLWS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)


def hill(
    plws: Sequence[float] = HILL_PLWS, seeds: int = 3, *, bend: float = 1.2, noise: float = 0.03
) -> tuple[list[TrialRecord], dict[str, ScoreCard]]:
    """Return trials whose scores in all groups are highest at w_p 0.65, which is PLW 0.24."""
    rng = random.Random(0)
    trials, cards = [], {}
    for plw in plws:
        for seed in range(seeds):
            luck = noise * rng.gauss(0, 1)
            shares = [
                1 / (1 + math.exp(bend * (w_p(plw) - 0.65) ** 2 - level - luck))
                for level in (0.5 + 0.2 * noise * rng.gauss(0, 1), -0.5, -1.0)
            ]
            values = [shares[0], shares[1], 100 * shares[2], 2.5 - shares[0]]
            record = trial(plw, seed=seed, searched={"seed": seed})
            record = record.model_copy(update={"id": f"{len(trials):02d}"})
            trials.append(record)
            names = [name for name in MEASURES if name != "heldout_prompt_loss"]
            cards[record.id] = card(
                {name: (v, v - 0.05, v + 0.05) for name, v in zip(names, values, strict=True)}
            )
    return trials, cards


def write_hill(root: Path, **changes: Any) -> SweepFolder:
    """Write a sweep with a clear best PLW: seven weights, three seeds each."""
    trials, cards = hill()
    return write_sweep(root, trials, cards, card(UNTUNED), **changes)


def outcome_of(
    folder: SweepFolder, *, num_skipped: int = 0, num_unfinished: int = 0
) -> SweepOutcome:
    """Return what `plw sweep` knows at the end of a sweep that ran one trial."""
    return SweepOutcome(
        folder=folder,
        num_run=1,
        num_skipped=num_skipped,
        num_failed=0,
        num_unfinished=num_unfinished,
        num_not_started=0,
        num_stopped=0,
        end_reason=None,
        is_tracked=True,
        was_stopped=False,
    )
