"""Small fine-tunes for tests: a model, data and settings that train in about a second."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.tiny_model import save_tiny_model
from trainers.config import TrainConfig
from trainers.runs.results import StepMetrics


def write_data(path: Path, count: int = 40) -> Path:
    """Sums in Alpaca form: short completions, prompts of several lengths."""
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
    """Six steps on a tiny model in `folder`; `changes` replace whole sections."""
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
    """Those settings with all defaults, as a trial's record has them."""
    given = settings(folder, loss={"prompt_loss_weight": prompt_loss_weight})
    return TrainConfig.model_validate(given).model_dump(mode="json")


class Crash(Exception):
    """The end of a process, as far as one can have it without ending the process."""


def train_until(config: dict[str, Any], output_dir: Path, crash_after: int | None = None) -> None:
    """Train, or crash once step `crash_after` is logged.

    No step begins before the shards of the one before are written, so that it is certain which
    checkpoints are complete.
    """
    from trainers.sft import train

    try:
        train(TrainConfig.model_validate(config), output_dir, on_step=stop_at(crash_after))
    except Crash:
        return


def stop_at(crash_after: int | None) -> Callable[[StepMetrics], None]:
    """What waits at each step for checkpoints under way, and crashes once one is logged."""

    def on_step(metrics: StepMetrics) -> None:
        for thread in threading.enumerate():
            if thread.name == "checkpoint":
                thread.join()
        if metrics.step == crash_after:
            raise Crash

    return on_step


def train_cut_and_whole(config: dict[str, Any], folder: Path, name: str) -> None:
    """One run without a break, `whole-<name>`; one that crashes after step 6 and goes on from 4,
    `cut-<name>`."""
    train_until(config, folder / f"whole-{name}")
    train_until(config, folder / f"cut-{name}", crash_after=6)
    train_until(config, folder / f"cut-{name}")
