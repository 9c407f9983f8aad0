"""Small fine-tunes for tests: a model, data and settings that train in about a second."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.tiny_model import save_tiny_model
from trainers.config import TrainConfig
from trainers.runs.results import StepMetrics

# ZeRO 3 does not partition weights below this size, by default 100,000 elements.
NO_PERSISTENCE = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}


def write_data(path: Path, count: int = 40) -> Path:
    """Return sums in Alpaca form, with short completions and prompts of several lengths."""
    records = [
        {
            "instruction": f"Add {i} and {7 * i % 13}." + " Take care." * (i % 4),
            "input": "",
            "output": str(i + 7 * i % 13),
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return settings of six steps on a tiny model in `folder`; `changes` replace sections."""
    if not (folder / "model").exists():
        save_tiny_model(folder / "model")
        write_data(folder / "data.jsonl")
    return {
        "model": {"path": str(folder / "model")},
        "data": {
            "path": str(folder / "data.jsonl"),
            "template": "plain",
            "max_length": 64,
            "heldout_examples": 8,
        },
        "loss": {"prompt_loss_weight": 0.1},
        "optimizer": {"learning_rate": 1e-2, "weight_decay": 0.1},
        "schedule": {"steps": 6},
        "batch": {"global_batch_size": 7, "micro_batch_size": 2},
        "deepspeed": {"zero_stage": 2, "precision": "float32"},
        "checkpoint": {"every_steps": 2},
        **changes,
    }


def whole_settings(folder: Path, prompt_loss_weight: float) -> dict[str, Any]:
    """Return the settings with all defaults, as in a trial's record."""
    given = settings(folder, loss={"prompt_loss_weight": prompt_loss_weight})
    return TrainConfig.model_validate(given).model_dump(mode="json")


class Crash(Exception):
    """Raised to simulate the crash of a process."""


def train_until(config: dict[str, Any], output_dir: Path, crash_after: int | None = None) -> None:
    """Train, or crash once step `crash_after` is logged.

    Each step waits for the shards of the previous checkpoint, so it is known which are complete.
    """
    from trainers.sft import train

    try:
        train(TrainConfig.model_validate(config), output_dir, on_step=crash_callback(crash_after))
    except Crash:
        return


def crash_callback(crash_after: int | None) -> Callable[[StepMetrics], None]:
    """Return a callback that waits for pending checkpoints and crashes after a step."""

    def on_step(metrics: StepMetrics) -> None:
        for thread in threading.enumerate():
            if thread.name == "checkpoint":
                thread.join()
        if metrics.step == crash_after:
            raise Crash

    return on_step


def train_interrupted_and_uninterrupted(config: dict[str, Any], folder: Path, name: str) -> None:
    """Train `whole-<name>` without interruption, and `cut-<name>` with a crash after step 6.

    The second run resumes from step 4.
    """
    train_until(config, folder / f"whole-{name}")
    train_until(config, folder / f"cut-{name}", crash_after=6)
    train_until(config, folder / f"cut-{name}")
