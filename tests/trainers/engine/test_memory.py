"""A finished fine-tune frees its memory, so that warm ranks can run the next one."""

import gc
import json
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensor

from tests.trainers.tiny_runs import settings
from tests.worlds import run_in_world
from trainers.config import TrainConfig


def live_tensor_bytes() -> int:
    """Return the bytes of all tensors; torch.compile's fake ones have none."""
    gc.collect()
    tensors = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
    storages = [o.untyped_storage() for o in tensors if not isinstance(o, FakeTensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def measure(folder: Path) -> None:
    from trainers.sft import train

    left = {}
    for stage in (0, 1, 2, 3):
        config = settings(folder, deepspeed={"zero_stage": stage, "precision": "float32"})
        before = live_tensor_bytes()
        train(TrainConfig.model_validate(config), folder / f"run-{stage}")
        left[stage] = live_tensor_bytes() - before
    (folder / "left.json").write_text(json.dumps(left))


@pytest.mark.slow
def test_weights_gradients_and_moments_are_freed_after_training(tmp_path: Path) -> None:
    run_in_world(1, measure, tmp_path)
    left = json.loads((tmp_path / "left.json").read_text())
    model_bytes = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert model_bytes > 50_000
    assert {stage: size < model_bytes / 10 for stage, size in left.items()} == dict.fromkeys(
        "0123", True
    ), left
