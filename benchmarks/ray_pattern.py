"""Ray's documented pattern for Tune with Train: `python -m benchmarks.ray_pattern JOB`.

A Tune function builds a `TorchTrainer` for each trial. Its workers run this project's fine-tune, so
only the orchestration differs.

Source: docs.ray.io/en/latest/train/user-guides/hyperparameter-optimization.html
"""

import json
import os
import sys
from pathlib import Path
from typing import Any


def train_rank(config: dict[str, Any]) -> None:
    """Train in one worker."""
    import ray.train
    import torch

    from trainers.config import TrainConfig
    from trainers.sft import train

    torch.set_num_threads(1)
    settings = TrainConfig.model_validate(config["settings"])
    result = train(settings, Path(config["out"]))
    ray.train.report({"completion_loss": result.completion_loss})


def drive(config: dict[str, Any]) -> None:
    """Run one trial in Tune."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    job, index = config["job"], config["index"]
    TorchTrainer(
        train_rank,
        train_loop_config={
            "settings": job["settings"][index],
            "out": str(Path(job["folder"]) / f"trial{index}"),
        },
        scaling_config=ScalingConfig(num_workers=job["workers"]),
        run_config=RunConfig(
            name=f"trial{index}",
            storage_path=str(Path(job["folder"]) / "ray_train"),
            callbacks=[TuneReportCallback()],
        ),
    ).fit()


def main(path: Path) -> None:
    """Run the trials of a job file one after another."""
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
    import ray
    from ray import tune

    job = json.loads(path.read_text())
    ray.init(include_dashboard=False, logging_level="ERROR")
    tune.Tuner(
        tune.with_resources(drive, {"memory": 100 * 2**20}),
        param_space={"job": job, "index": tune.grid_search(list(range(len(job["settings"]))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=1),
        run_config=tune.RunConfig(name="pattern", storage_path=str(Path(job["folder"]) / "tune")),
    ).fit()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
