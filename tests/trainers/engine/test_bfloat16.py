"""Training in bfloat16: float32 master weights survive a resume to the same bits."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.trainers.tiny_runs import NO_PERSISTENCE, settings, train_interrupted_and_uninterrupted
from tests.worlds import run_in_world

STAGES = (1, 2, 3)


def interrupted_and_uninterrupted(folder: Path) -> None:
    for stage in STAGES:
        config = settings(
            folder,
            deepspeed={
                "zero_stage": stage,
                "precision": "bfloat16",
                "override": NO_PERSISTENCE if stage == 3 else {},
            },
            batch={"global_batch_size": 7, "micro_batch_size": 2, "packing": stage in (1, 3)},
        )
        train_interrupted_and_uninterrupted(config, folder, str(stage))


@pytest.fixture(scope="module", params=[pytest.param(1), pytest.param(2, marks=pytest.mark.slow)])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"bfloat16-{request.param}")
    settings(folder)
    run_in_world(request.param, interrupted_and_uninterrupted, folder)
    return folder


def exported(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(folder / "model" / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def metrics(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("stage", STAGES)
def test_resume_equals_uninterrupted_run(runs: Path, stage: int) -> None:
    whole, cut = exported(runs / f"whole-{stage}"), exported(runs / f"cut-{stage}")
    assert all(weight.dtype == torch.bfloat16 for weight in whole.values())
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    keys = ("loss", "grad_norm", "learning_rate", "num_tokens")
    assert [[step[key] for key in keys] for step in metrics(runs / f"cut-{stage}")] == [
        [step[key] for key in keys] for step in metrics(runs / f"whole-{stage}")
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_computes_the_same_steps(runs: Path, stage: int) -> None:
    losses = [step["loss"] for step in metrics(runs / f"whole-{stage}")]
    reference = [step["loss"] for step in metrics(runs / "whole-2")]
    assert losses == pytest.approx(reference, rel=0.02)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("stage", STAGES)
def test_distance_uses_the_master_weights(runs: Path, stage: int) -> None:
    distances = [
        json.loads((runs / f"{kind}-{stage}" / "train.json").read_text())["result"]["distance"]
        for kind in ("whole", "cut")
    ]
    assert distances[0] == distances[1] > 0
