"""AdamW with 8-bit moments, beside torch's with float32 moments."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import (
    NO_PERSISTENCE,
    settings,
    train_interrupted_and_uninterrupted,
    train_until,
)
from tests.worlds import run_in_world
from trainers.config import OptimizerConfig
from trainers.engine.optimizer import make_adamw
from trainers.foundation import extras
from trainers.foundation.errors import InputError

STAGES = (0, 1, 2, 3)
OPTIMIZER = {"learning_rate": 1e-3, "weight_decay": 0.1, "max_grad_norm": 0.0}


def with_bits(folder: Path, bits: int, stage: int, steps: int) -> dict[str, Any]:
    override = NO_PERSISTENCE if stage == 3 else {}
    return settings(
        folder,
        optimizer={**OPTIMIZER, "state_bits": bits},
        schedule={"steps": steps, "kind": "constant", "warmup_steps": 0},
        deepspeed={"zero_stage": stage, "precision": "float32", "override": override},
    )


def train_stages(folder: Path, stages: tuple[int, ...]) -> None:
    for stage in stages:
        train_interrupted_and_uninterrupted(with_bits(folder, 8, stage, 6), folder, str(stage))
        train_until(with_bits(folder, 32, stage, 6), folder / f"float-{stage}")
        for bits in (8, 32):
            train_until(with_bits(folder, bits, stage, 1), folder / f"first-{bits}-{stage}")


@pytest.fixture(
    scope="module",
    params=[pytest.param(1), pytest.param(2, marks=pytest.mark.slow)],
)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"world{request.param}")
    settings(folder)
    # Tensors with fewer than 4,096 elements keep float32 moments.
    save_tiny_model(folder / "model", hidden_size=64)
    run_in_world(request.param, train_stages, folder, STAGES)
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def difference(one: Path, other: Path, start: Path) -> float:
    """Return the largest difference of a weight, relative to the mean change from the start."""
    a, b, original = weights(one), weights(other), load_file(start / "model.safetensors")
    changes = torch.cat([(a[name] - original[name]).abs().flatten() for name in a])
    return max(float((a[name] - b[name]).abs().max()) for name in a) / float(changes.mean())


@pytest.mark.parametrize("stage", STAGES)
def test_the_first_step_is_that_of_float32_moments(runs: Path, stage: int) -> None:
    """The moments are quantized after the step, so rate, decay and correction must agree."""
    one, other = (runs / f"first-{bits}-{stage}" for bits in (8, 32))
    assert difference(one, other, runs / "model") < 1e-3


@pytest.mark.parametrize("stage", STAGES)
def test_later_steps_differ_by_the_quantization(runs: Path, stage: int) -> None:
    one, other = runs / f"whole-{stage}", runs / f"float-{stage}"
    assert 1e-3 < difference(one, other, runs / "model") < 2
    losses = [
        json.loads((run / "train.json").read_text())["result"]["completion_loss"]
        for run in (one, other)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_run_gives_the_same_bits(runs: Path, stage: int) -> None:
    whole, cut = (weights(runs / f"{kind}-{stage}") for kind in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def leave_checkpoint(folder: Path) -> None:
    train_until(with_bits(folder, 8, 2, 6), folder / "cut", crash_after=6)


def test_a_checkpoint_has_moments_of_8_bits(tmp_path: Path) -> None:
    settings(tmp_path)
    save_tiny_model(tmp_path / "model", hidden_size=64)
    run_in_world(1, leave_checkpoint, tmp_path)
    [shard] = (tmp_path / "cut" / "checkpoints" / "step-00000004").glob("*.safetensors")
    with safe_open(shard, framework="pt") as tensors:
        found = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    size = sum(t.numel() for name, t in found.items() if name.startswith("weight/"))
    states = {name: t for name, t in found.items() if not name.startswith("weight/")}
    assert states["partition/0/state1"].dtype == torch.uint8
    assert states["partition/0/state1"].numel() == pytest.approx(size, abs=16)
    assert int(states["partition/0/step"]) == 4
    state_bytes = sum(t.numel() * t.element_size() for t in states.values())
    assert 2 * size < state_bytes < 2.2 * size


def resume_rejected(folder: Path) -> None:
    with pytest.raises(InputError, match=r"1 ranks wrote the 8-bit moments .*, and 2 cannot"):
        leave_checkpoint(folder)


@pytest.mark.slow
def test_another_number_of_ranks_is_rejected(tmp_path: Path) -> None:
    settings(tmp_path)
    save_tiny_model(tmp_path / "model", hidden_size=64)
    run_in_world(1, leave_checkpoint, tmp_path)
    run_in_world(2, resume_rejected, tmp_path)


def test_error_without_bitsandbytes_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'plw-sweep\[qlora\]'"):
        make_adamw([torch.zeros(1)], OptimizerConfig(state_bits=8), 0.0)
