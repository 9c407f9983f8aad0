"""`deterministic`: every operation of a step has a deterministic algorithm.

A CPU shows which operations torch rejects on any device; the bits on CUDA need a GPU
(benchmarks/gpu).
"""

import os
from pathlib import Path

import torch

from tests.trainers.tiny_runs import settings, train_until
from tests.worlds import run_in_world
from trainers.engine.determinism import deterministic_algorithms


def train_with_and_without(folder: Path) -> None:
    batch = {"global_batch_size": 7, "micro_batch_size": 2, "packing": True}
    for deterministic in (False, True):
        config = settings(folder, deterministic=deterministic, batch=batch)
        train_until(config, folder / str(deterministic))


def test_a_deterministic_run_gives_the_bits_of_any_run_on_a_cpu(tmp_path: Path) -> None:
    run_in_world(1, train_with_and_without, tmp_path)
    one, other = (
        (tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("False", "True")
    )
    assert one == other
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_switch_ends_with_the_run() -> None:
    with deterministic_algorithms(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["FLASH_ATTENTION_DETERMINISTIC"] == "1"
    assert not torch.are_deterministic_algorithms_enabled()
    assert "FLASH_ATTENTION_DETERMINISTIC" not in os.environ


def test_cublas_is_set_before_a_process_can_use_a_gpu() -> None:
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
