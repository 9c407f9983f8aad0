"""The exported model is that of the lowest held-out loss, also after kills and on several ranks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from safetensors.torch import load_file

from evals.engine.loading import load_model
from evals.heldout.loss import evaluate_heldout_loss
from tests.object_stores import BUCKET, S3Server, s3_server
from tests.trainers.tiny_runs import (
    NO_PERSISTENCE,
    Crash,
    crash_callback,
    settings,
    train_interrupted_and_uninterrupted,
    train_until,
)
from tests.worlds import run_in_world
from trainers.config import TrainConfig
from trainers.data.tokenize import read_split
from trainers.foundation.files import sha256_file

# Far too large, so that the loss rises after some steps; the warm-up lets it fall before.
RATE = {"learning_rate": 0.3}
SCHEDULE = {"steps": 6, "kind": "constant", "warmup_ratio": 0.9}
CASES: dict[str, dict[str, Any]] = {
    "zero-0": {"deepspeed": {"zero_stage": 0, "precision": "float32"}},
    "zero-1": {"deepspeed": {"zero_stage": 1, "precision": "float32"}},
    "zero-2": {"deepspeed": {"zero_stage": 2, "precision": "float32"}},
    "zero-3": {"deepspeed": {"zero_stage": 3, "precision": "float32", "override": NO_PERSISTENCE}},
    "zero-2-bfloat16": {"deepspeed": {"zero_stage": 2, "precision": "bfloat16"}},
    "zero-2-lora": {"lora": {"rank": 4}},
}
FAST = ("zero-2", "zero-2-lora")
URI = f"s3://{BUCKET}/trials/one"


def with_best(folder: Path, case: str, **changes: Any) -> dict[str, Any]:
    defaults = {"optimizer": RATE, "schedule": SCHEDULE, "export_best_every_steps": 1}
    return settings(folder, **{**defaults, **CASES[case], **changes})


def train_cases(folder: Path, cases: tuple[str, ...]) -> None:
    """Train each case whole, and with crashes after steps 3 (before the best one) and 6."""
    for case in cases:
        train_interrupted_and_uninterrupted(with_best(folder, case), folder, case)
        for crash_after in (3, 5, None):
            train_until(with_best(folder, case), folder / f"twice-{case}", crash_after)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one-rank")
    settings(folder)
    run_in_world(1, train_cases, folder, FAST)
    return folder


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two-ranks")
    settings(folder)
    run_in_world(2, train_cases, folder, tuple(CASES))
    return folder


RUNS = [
    *(pytest.param("alone", case, id=f"{case}-one-rank") for case in FAST),
    *(
        pytest.param("together", case, id=f"{case}-two-ranks", marks=pytest.mark.slow)
        for case in CASES
    ),
]


@pytest.fixture
def folder(world: str, request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(world)
    return found


def heldout_losses(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["heldout_completion_loss"] for line in lines]


def result(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "train.json").read_text())["result"]
    return found


@pytest.mark.parametrize(("world", "case"), RUNS)
def test_the_exported_model_has_the_lowest_heldout_loss(folder: Path, case: str) -> None:
    run = folder / f"whole-{case}"
    losses = heldout_losses(run)
    best = losses.index(min(losses)) + 1
    assert 1 < best < 6, losses
    assert result(run)["exported_step"] == best
    assert result(run)["exported_heldout_completion_loss"] == min(losses)
    assert result(run)["last_heldout_completion_loss"] == losses[-1]
    config = TrainConfig.model_validate(with_best(folder, case))
    loaded = load_model(run / "model", template="plain", max_length=64)
    scores = evaluate_heldout_loss(
        loaded, read_split(config.data).heldout, batch_size=3, seed=0, on_progress=lambda *_: None
    ).scores
    [scored] = [score.value for score in scores if score.name == "heldout_completion_loss"]
    # A bfloat16 model is scored in float32.
    assert scored == pytest.approx(min(losses), rel=3e-3 if "bfloat16" in case else 1e-5)


@pytest.mark.parametrize(("world", "case"), RUNS)
def test_an_interrupted_run_exports_the_same_bits(folder: Path, case: str) -> None:
    names = ["model/model.safetensors", "model/trained_as.json"]
    names += ["adapter/adapter_model.safetensors"] if "lora" in case else []
    for kind in ("cut", "twice"):
        for name in names:
            whole, other = (folder / f"{run}-{case}" / name for run in ("whole", kind))
            assert sha256_file(whole) == sha256_file(other), (kind, name)
        whole_result, other_result = (result(folder / f"{run}-{case}") for run in ("whole", kind))
        for key in ("exported_step", "exported_heldout_completion_loss", "distance"):
            assert whole_result[key] == other_result[key]


@pytest.mark.parametrize(("world", "case"), RUNS)
def test_a_finished_run_has_one_model_and_no_checkpoints(folder: Path, case: str) -> None:
    for kind in ("whole", "cut", "twice"):
        run = folder / f"{kind}-{case}"
        assert not (run / "checkpoints").exists()
        found = {path.relative_to(run).parts[0] for path in run.rglob("*.safetensors")}
        assert found == ({"model", "adapter"} if "lora" in case else {"model"})


def test_the_exported_weights_are_those_of_a_run_that_ends_at_that_step(alone: Path) -> None:
    """The schedule is constant, so a shorter run without the setting has the same steps."""
    schedule = {"kind": "constant", "warmup_steps": 1}
    long = with_best(alone, "zero-2", schedule={**schedule, "steps": 6})
    run_in_world(1, train_until, long, alone / "long")
    best = result(alone / "long")["exported_step"]
    assert 1 < best < 6
    short = with_best(
        alone, "zero-2", schedule={**schedule, "steps": best}, export_best_every_steps=None
    )
    run_in_world(1, train_until, short, alone / "short")
    assert result(alone / "short")["exported_step"] == best
    assert result(alone / "long")["distance"] == result(alone / "short")["distance"]
    weights = [
        load_file(alone / name / "model" / "model.safetensors") for name in ("short", "long")
    ]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


def test_an_evaluation_leaves_one_model_beside_the_checkpoints(tmp_path: Path) -> None:
    config = with_best(tmp_path, "zero-2", checkpoint={"every_steps": 2})
    run_in_world(1, train_until, config, tmp_path / "cut", 6)
    best = heldout_losses(tmp_path / "cut")
    step = best.index(min(best)) + 1
    found = sorted(path.name for path in (tmp_path / "cut" / "checkpoints").iterdir())
    assert found == [f"best-{step:08d}", "step-00000004"]


def test_a_run_killed_after_its_model_was_moved_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trainers.sft

    def crash(*_: Any) -> None:
        raise Crash

    config = with_best(tmp_path, "zero-2")
    run_in_world(1, train_until, config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(trainers.sft, "write_json", crash)  # train.json
        run_in_world(1, train_until, config, tmp_path / "cut")
    assert not (tmp_path / "cut" / "train.json").exists()
    moved = sha256_file(tmp_path / "cut" / "model" / "model.safetensors")
    run_in_world(1, train_until, config, tmp_path / "cut")
    assert sha256_file(tmp_path / "cut" / "model" / "model.safetensors") == moved
    assert sha256_file(tmp_path / "whole" / "model" / "model.safetensors") == moved
    assert result(tmp_path / "cut")["exported_step"] == result(tmp_path / "whole")["exported_step"]


def test_a_run_with_other_settings_does_not_take_the_model_of_an_earlier_one(
    tmp_path: Path,
) -> None:
    without = {"checkpoint": {"every_minutes": None}}
    first = with_best(tmp_path, "zero-2", **without)
    run_in_world(1, train_until, first, tmp_path / "run", 5)
    assert list((tmp_path / "run" / "checkpoints").glob("best-*"))
    other = with_best(tmp_path, "zero-2", optimizer={"learning_rate": 1e-7}, **without)
    run_in_world(1, train_until, other, tmp_path / "run")
    losses = heldout_losses(tmp_path / "run")
    assert result(tmp_path / "run")["exported_heldout_completion_loss"] == min(losses)
    assert max(losses) - min(losses) < 1e-3


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


def train_on_nodes(config: dict[str, Any], folder: Path, crash_after: int | None) -> None:
    """Train with a separate folder for each rank."""
    from trainers.foundation.object_store import ObjectStore
    from trainers.sft import train

    place = folder / f"node-{dist.get_rank()}"
    store = ObjectStore(URI, tries=2)
    try:
        train(TrainConfig.model_validate(config), place, crash_callback(crash_after), store=store)
    except Crash:
        return


@pytest.mark.slow
def test_the_best_model_is_in_the_store_when_all_nodes_are_lost(
    server: S3Server, tmp_path: Path
) -> None:
    config = with_best(tmp_path, "zero-2", checkpoint={"every_steps": 5})
    run_in_world(2, train_on_nodes, config, tmp_path / "whole", None)
    whole = tmp_path / "whole" / "node-0"
    best = result(whole)["exported_step"]
    for name in server.names():
        server.client().delete_object(Bucket=BUCKET, Key=name)

    run_in_world(2, train_on_nodes, config, tmp_path / "cut", 6)
    # pyarrow leaves an empty object for a folder.
    kept = {name.split("/")[3] for name in server.names() if "checkpoints/" in name} - {""}
    assert kept == {f"best-{best:08d}", "step-00000005"}
    run_in_world(2, train_on_nodes, config, tmp_path / "again", None)
    again = tmp_path / "again" / "node-0"
    name = "model/model.safetensors"
    assert sha256_file(again / name) == sha256_file(whole / name)
    assert result(again)["exported_step"] == best
    assert not [name for name in server.names() if "checkpoints/best" in name]
