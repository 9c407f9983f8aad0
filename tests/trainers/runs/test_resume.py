"""A resumed fine-tune ends with the same bits as an uninterrupted one."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.trainers.tiny_runs import (
    NO_PERSISTENCE,
    settings,
    train_interrupted_and_uninterrupted,
    train_until,
)
from tests.worlds import run_in_world
from trainers.foundation.errors import InputError

STAGES = (0, 1, 2, 3)
FULL = pytest.mark.full
PAUSE = threading.Event()


def weights(output_dir: Path) -> dict[str, bytes]:
    loaded = load_file(output_dir / "model" / "model.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in loaded.items()}


def interrupted_and_uninterrupted(folder: Path) -> None:
    """At each stage, run once without interruption, and once with a crash after step 6."""
    for stage in STAGES:
        override = NO_PERSISTENCE if stage == 3 else {}
        deepspeed = {"zero_stage": stage, "precision": "float32", "override": override}
        config = settings(folder, deepspeed=deepspeed)
        train_interrupted_and_uninterrupted(config, folder, str(stage))


@pytest.fixture(
    scope="module",
    params=[pytest.param(1), pytest.param(2, marks=[pytest.mark.slow, pytest.mark.smoke])],
)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"world{request.param}")
    settings(folder)
    run_in_world(request.param, interrupted_and_uninterrupted, folder)
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_resume_equals_uninterrupted_run(runs: Path, stage: int) -> None:
    assert weights(runs / f"cut-{stage}") == weights(runs / f"whole-{stage}")


@pytest.mark.parametrize("stage", STAGES)
def test_resumed_run_logs_each_step_once(runs: Path, stage: int) -> None:
    lines = (runs / f"cut-{stage}" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_training_changes_the_weights_and_reduces_the_loss(runs: Path) -> None:
    lines = (runs / "whole-2" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["completion_loss"] for line in lines]
    assert losses[-1] < 0.9 * losses[0]


def test_finished_run_leaves_no_checkpoint(runs: Path) -> None:
    assert not (runs / "whole-2" / "checkpoints").exists()


def resume_after_damage(folder: Path) -> None:
    config = settings(folder, checkpoint={"every_steps": 2, "keep": 2})
    train_until(config, folder / "whole")
    train_until(config, folder / "cut", crash_after=6)
    newest = folder / "cut" / "checkpoints" / "step-00000004"
    [shard] = newest.glob("shard-*")
    with shard.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    train_until(config, folder / "cut")


def test_a_damaged_checkpoint_is_skipped_for_the_previous_one(tmp_path: Path) -> None:
    run_in_world(1, resume_after_damage, tmp_path)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def crash_between_checkpoints_by_time(folder: Path) -> None:
    # No time at all: a checkpoint is due after each step.
    config = settings(folder, checkpoint={"every_minutes": 1e-9})
    train_until(config, folder / "whole")
    train_until(config, folder / "cut", crash_after=4)
    markers = sorted((folder / "cut" / "checkpoints").glob("step-*/COMPLETE.json"))
    # The checkpoint of step 3 is complete if it was written before step 4 ended.
    assert [path.parent.name for path in markers] in (["step-00000002"], ["step-00000003"])
    train_until(config, folder / "cut")


def test_checkpoints_by_time_resume_to_the_same_bits(tmp_path: Path) -> None:
    run_in_world(1, crash_between_checkpoints_by_time, tmp_path)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def leave_a_checkpoint(folder: Path) -> None:
    train_until(settings(folder), folder / "cut", crash_after=6)
    other = settings(folder, loss={"prompt_loss_weight": 0.2})
    with pytest.raises(InputError, match="a run with other settings"):
        train_until(other, folder / "cut")


def test_a_checkpoint_with_other_settings_is_rejected(tmp_path: Path) -> None:
    run_in_world(1, leave_a_checkpoint, tmp_path)


def resume_at(folder: Path, crash_after: int | None) -> None:
    train_until(settings(folder), folder / "moved", crash_after=crash_after)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_bfloat16_checkpoint_of_an_earlier_release_is_not_continued(
    precision: str, tmp_path: Path
) -> None:
    config = settings(tmp_path, deepspeed={"precision": precision})
    train_until(config, tmp_path / "cut", crash_after=6)
    marker = tmp_path / "cut" / "checkpoints" / "step-00000004" / "COMPLETE.json"
    content = json.loads(marker.read_text())
    del content["gradient_dtype"]
    marker.write_text(json.dumps(content))
    if precision == "float32":
        train_until(config, tmp_path / "cut")
        return
    with pytest.raises(InputError, match="summed gradients in bfloat16 instead of float32"):
        train_until(config, tmp_path / "cut")


@pytest.mark.slow
def test_resumes_at_another_world_size(tmp_path: Path) -> None:
    """The gradient is the same at any world size, up to the order of float32 sums."""
    settings(tmp_path)  # Otherwise both ranks would write the model.
    run_in_world(2, resume_at, tmp_path, 6)
    run_in_world(1, resume_at, tmp_path, None)
    train_in_one = tmp_path / "whole"
    run_in_world(1, train_uninterrupted, tmp_path)
    moved = load_file(tmp_path / "moved" / "model" / "model.safetensors")
    whole = load_file(train_in_one / "model" / "model.safetensors")
    for name in whole:
        assert (moved[name] - whole[name]).norm() < 1e-3 * whole[name].norm(), name


def train_uninterrupted(folder: Path) -> None:
    train_until(settings(folder), folder / "whole")


def launch(
    config: dict[str, Any], output_dir: Path, world_size: int
) -> list[subprocess.Popen[str]]:
    """Start the processes of one fine-tune, as torchrun does."""
    path = output_dir.parent / f"{output_dir.name}.yaml"
    with path.open("w") as file:
        YAML().dump(config, file)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world_size),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "trainers", str(path), "--output-dir", str(output_dir)]
    return [
        subprocess.Popen(
            command,
            env={**base, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]


def last_step(output_dir: Path) -> int:
    path = output_dir / "metrics.jsonl"
    if not path.exists():
        return 0
    lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
    return int(json.loads(lines[-1])["step"]) if lines else 0


def wait_for_step(output_dir: Path, step: int, ranks: list[subprocess.Popen[str]]) -> None:
    """Wait until these ranks have logged `step`; they first remove lines of repeated steps."""
    metrics = output_dir / "metrics.jsonl"
    launched = max(psutil.Process(rank.pid).create_time() for rank in ranks)
    deadline = time.monotonic() + 120
    while (
        not metrics.exists() or metrics.stat().st_mtime < launched or last_step(output_dir) < step
    ):
        assert time.monotonic() < deadline, "no progress"
        assert all(rank.poll() is None for rank in ranks), "a rank ended by itself"
        # Polling without a pause would take a core from the training processes.
        PAUSE.wait(0.1)


def finish(ranks: list[subprocess.Popen[str]]) -> None:
    outputs = [rank.communicate(timeout=180)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * len(ranks), outputs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world_size", "stage", "kill_steps"),
    [
        (1, 2, (30, 70)),
        *(
            pytest.param(world, stage, sorted(Random(stage).sample(range(5, 115), 10)), marks=FULL)
            for world, stage in itertools.product((1, 2), (1, 2, 3))
        ),
    ],
)
def test_killed_processes_resume_to_the_same_bits(
    world_size: int, stage: int, kill_steps: list[int], tmp_path: Path
) -> None:
    config = settings(
        tmp_path,
        deepspeed={"zero_stage": stage, "precision": "float32"},
        schedule={"steps": 120},
        checkpoint={"every_steps": 20},
    )
    finish(launch(config, tmp_path / "whole", world_size))
    for step in kill_steps:
        ranks = launch(config, tmp_path / "cut", world_size)
        wait_for_step(tmp_path / "cut", step, ranks)
        for rank in ranks:
            rank.send_signal(signal.SIGKILL)
            rank.communicate()
    finish(launch(config, tmp_path / "cut", world_size))
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_sigterm_writes_a_checkpoint_and_ends_cleanly(tmp_path: Path) -> None:
    config = settings(tmp_path, schedule={"steps": 2000}, checkpoint={})
    [rank] = launch(config, tmp_path / "run", 1)
    wait_for_step(tmp_path / "run", 3, [rank])
    rank.terminate()
    output, _ = rank.communicate(timeout=60)
    assert rank.returncode == 128 + signal.SIGTERM, output
    [checkpoint] = (tmp_path / "run" / "checkpoints").iterdir()
    assert (checkpoint / "COMPLETE.json").exists()
    assert "Traceback" not in output


def test_the_exported_model_has_the_files_of_the_original(runs: Path) -> None:
    original = load_file(runs / "model" / "model.safetensors")
    for stage in STAGES:
        exported = load_file(runs / f"whole-{stage}" / "model" / "model.safetensors")
        assert {n: t.shape for n, t in exported.items()} == {
            n: t.shape for n, t in original.items()
        }


def test_a_checkpoint_of_another_model_is_rejected(tmp_path: Path) -> None:
    config = settings(tmp_path)
    train_until(config, tmp_path / "cut", crash_after=6)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    smaller = type(model)(type(model.config)(**{**model.config.to_dict(), "hidden_size": 16}))
    smaller.save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match=r"of another model: \d+ weights differ in name or shape"):
        train_until(config, tmp_path / "cut")
