"""A stopped run leaves the requested files, and its process can run another one."""

import json
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.trainers.engine.test_memory import live_tensor_bytes
from tests.trainers.tiny_runs import settings
from tests.worlds import run_in_world
from trainers.config import TrainConfig
from trainers.engine.ranks import join_ranks
from trainers.runs.stop_signals import Interrupted, Stopped, StopRequest

STAGES = {1: (3,), 2: (0, 1, 2, 3)}
WORLDS = [
    *((1, stage) for stage in STAGES[1]),
    *(pytest.param(2, stage, marks=pytest.mark.slow) for stage in STAGES[2]),
]


def config_of(folder: Path, stage: int, **changes: Any) -> TrainConfig:
    """Write a checkpoint after each step, so that one is pending at the stop request."""
    changes = {
        "deepspeed": {"zero_stage": stage, "precision": "float32"},
        "checkpoint": {"every_steps": 1},
        **changes,
    }
    return TrainConfig.model_validate(settings(folder, **changes))


def request_of_the_last_rank(request: StopRequest, after: int) -> Callable[[], StopRequest | None]:
    """Return `request` once after so many steps on the last rank, and None on all others."""
    ranks = join_ranks()
    polls = 0

    def get_stop_request() -> StopRequest | None:
        nonlocal polls
        polls += 1
        return request if polls == after and ranks.rank == ranks.world_size - 1 else None

    return get_stop_request


def stop_and_resume(folder: Path, stages: tuple[int, ...]) -> None:
    from trainers.sft import train

    for stage in stages:
        config = config_of(folder, stage)
        other = config_of(folder, stage, loss={"prompt_loss_weight": 0.7}, seed=1)
        train(other, folder / f"alone-{stage}")
        train(config, folder / f"whole-{stage}")
        with pytest.raises(Interrupted):
            train(
                config,
                folder / f"kept-{stage}",
                get_stop_request=request_of_the_last_rank("checkpoint", after=3),
            )
        left = sorted(p.name for p in (folder / f"kept-{stage}" / "checkpoints").iterdir())
        assert left == ["step-00000003"]
        train(other, folder / f"after-kept-{stage}")
        train(config, folder / f"kept-{stage}")
        with pytest.raises(Stopped, match="stopped after step 4"):
            train(
                config,
                folder / f"discarded-{stage}",
                get_stop_request=request_of_the_last_rank("discard", after=4),
            )
        train(other, folder / f"after-discarded-{stage}")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stopped_in(1, tmp_path_factory)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stopped_in(2, tmp_path_factory)


def stopped_in(world_size: int, factory: pytest.TempPathFactory) -> Path:
    folder = factory.mktemp(f"stop-{world_size}")
    settings(folder)
    run_in_world(world_size, stop_and_resume, folder, STAGES[world_size])
    return folder


@pytest.fixture
def folder(world_size: int, request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue({1: "alone", 2: "together"}[world_size])
    return found


def weights(output_dir: Path) -> dict[str, bytes]:
    loaded = load_file(output_dir / "model" / "model.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in loaded.items()}


def steps(output_dir: Path) -> list[int]:
    lines = (output_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


@pytest.mark.parametrize(("world_size", "stage"), WORLDS)
def test_a_run_stopped_with_a_checkpoint_by_one_rank_resumes_to_the_same_bits(
    folder: Path, stage: int
) -> None:
    assert steps(folder / f"kept-{stage}") == [1, 2, 3, 4, 5, 6]
    assert weights(folder / f"kept-{stage}") == weights(folder / f"whole-{stage}")


@pytest.mark.parametrize(("world_size", "stage"), WORLDS)
def test_a_discarded_run_leaves_only_settings_and_metrics(folder: Path, stage: int) -> None:
    discarded = folder / f"discarded-{stage}"
    assert sorted(path.name for path in discarded.iterdir()) == ["config.json", "metrics.jsonl"]
    assert steps(discarded) == [1, 2, 3, 4]


@pytest.mark.parametrize("before", ["kept", "discarded"])
@pytest.mark.parametrize(("world_size", "stage"), WORLDS)
def test_a_stopped_run_does_not_affect_the_next_run_of_the_process(
    folder: Path, stage: int, before: str
) -> None:
    assert weights(folder / f"after-{before}-{stage}") == weights(folder / f"alone-{stage}")


def stop_in_all_stages(folder: Path) -> None:
    from trainers.sft import train

    left = {}
    stop_requests: tuple[StopRequest, ...] = ("checkpoint", "discard")
    for stage in (0, 1, 2, 3):
        for request in stop_requests:
            before = live_tensor_bytes()
            with pytest.raises((Interrupted, Stopped)):
                train(
                    config_of(folder, stage),
                    folder / f"{request}-{stage}",
                    get_stop_request=lambda request=request: request,
                )
            left[f"{request}-{stage}"] = live_tensor_bytes() - before
    (folder / "left.json").write_text(json.dumps(left))


@pytest.mark.slow
def test_a_stopped_run_frees_its_memory(tmp_path: Path) -> None:
    run_in_world(1, stop_in_all_stages, tmp_path)
    left = json.loads((tmp_path / "left.json").read_text())
    model_bytes = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert len(left) == 8
    assert {name: size for name, size in left.items() if size > model_bytes / 10} == {}


def disagree(folder: Path) -> None:
    from trainers.sft import train

    request: StopRequest = "checkpoint" if join_ranks().is_main else "discard"
    with pytest.raises(Interrupted):
        train(config_of(folder, 2), folder / "run", get_stop_request=lambda: request)


@pytest.mark.slow
def test_a_checkpoint_request_takes_precedence_over_discard(tmp_path: Path) -> None:
    settings(tmp_path)
    run_in_world(2, disagree, tmp_path)
    assert (tmp_path / "run" / "checkpoints" / "step-00000001" / "COMPLETE.json").exists()


def test_an_uncaught_interrupt_exits_with_the_code_of_sigterm() -> None:
    assert Interrupted().code == 128 + signal.SIGTERM
    assert str(pickle.loads(pickle.dumps(Stopped(4)))) == "stopped after step 4"
