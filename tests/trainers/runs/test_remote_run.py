"""A fine-tune whose ranks share only an object store."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from tests.object_stores import BUCKET, S3Server, s3_server
from tests.trainers.tiny_runs import Crash, crash_callback, settings
from tests.worlds import run_in_world
from trainers.config import TrainConfig
from trainers.foundation.errors import TrainingError
from trainers.foundation.files import sha256_file

URI = f"s3://{BUCKET}/trials/one"
NODES = ("node-a", "node-b")


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


def train_on_nodes(config: dict[str, Any], folder: Path, crash_after: int | None) -> None:
    """Train with a separate folder for each rank."""
    from trainers.foundation.object_store import ObjectStore
    from trainers.sft import train

    place = folder / NODES[dist.get_rank()]
    store = ObjectStore(URI, tries=2)
    try:
        train(TrainConfig.model_validate(config), place, crash_callback(crash_after), store=store)
    except Crash:
        return


def weights(folder: Path) -> str:
    return sha256_file(folder / "model" / "model.safetensors")


@pytest.mark.slow
def test_ranks_without_a_shared_folder_resume_from_the_store(
    server: S3Server, tmp_path: Path
) -> None:
    config = settings(tmp_path)
    run_in_world(2, train_on_nodes, config, tmp_path / "whole", None)
    assert not [name for name in server.names() if "checkpoints" in name]
    whole = weights(tmp_path / "whole" / "node-a")
    for name in server.names():
        server.client().delete_object(Bucket=BUCKET, Key=name)

    run_in_world(2, train_on_nodes, config, tmp_path / "cut", 6)
    assert "trials/one/checkpoints/step-00000004/COMPLETE.json" in server.names()
    # Both nodes are lost and replaced by new ones.
    run_in_world(2, train_on_nodes, config, tmp_path / "again", None)
    again = tmp_path / "again" / "node-a"
    assert weights(again) == whole
    lines = (again / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert not list((tmp_path / "again").glob("*/checkpoints"))
    assert not [name for name in server.names() if "checkpoints" in name]
    assert {"trials/one/train.json", "trials/one/model/model.safetensors"} <= set(server.names())


def test_a_failed_upload_of_a_checkpoint_fails_the_run(server: S3Server, tmp_path: Path) -> None:
    from trainers.foundation.object_store import ObjectStore
    from trainers.sft import train

    config = TrainConfig.model_validate(settings(tmp_path))
    server.fault = lambda method, path: "busy" if method in ("PUT", "POST") else None
    with pytest.raises(TrainingError, match=r"the checkpoint of step 2.*did not accept") as caught:
        train(config, tmp_path / "out", store=ObjectStore(URI, tries=2))
    assert caught.value.kind == "crash"
    assert not (tmp_path / "out" / "checkpoints" / "step-00000002" / "COMPLETE.json").exists()


def test_a_finished_run_is_not_trained_again_on_another_node(
    server: S3Server, tmp_path: Path
) -> None:
    from trainers.foundation.object_store import ObjectStore
    from trainers.sft import train

    config = TrainConfig.model_validate(settings(tmp_path))
    store = ObjectStore(URI)
    first = train(config, tmp_path / "one", store=store)
    again = train(config, tmp_path / "two", store=store)
    assert again.completion_loss == first.completion_loss
    assert not (tmp_path / "two" / "checkpoints").exists()
