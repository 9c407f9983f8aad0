"""Tests of `plw clean`: what it lists, deletes and leaves alone."""

from pathlib import Path

import pytest

from orchestrator.record.folder import SweepFolder
from orchestrator.record.lock import sweep_lock
from orchestrator.record.remote_sweep import RemoteSweep
from tests.object_stores import BUCKET, s3_server
from tests.orchestrator.plw import plw, refused
from tests.orchestrator.sweeps import sweep_record
from trainers.foundation.files import write_text

IDS = ("00s0", "001s0", "01s0", "10s0")


@pytest.fixture
def sweep(demo_sweep: SweepFolder) -> SweepFolder:
    """Return a finished sweep with a model of 2 KiB and a checkpoint of 512 B in each trial."""
    for trial_id in IDS:
        write_text(demo_sweep.model(trial_id) / "model.safetensors", "x" * 2048)
        write_text(demo_sweep.trial(trial_id) / "checkpoints" / "step-4" / "shard", "x" * 512)
        write_text(demo_sweep.trial(trial_id) / "train.json", "{}")
    return demo_sweep


def models(sweep: SweepFolder) -> list[str]:
    return sorted(path.parent.name for path in sweep.root.glob("trials/*/model"))


def test_clean_lists_sizes_and_keeps_the_best_model(sweep: SweepFolder) -> None:
    scores = {path: path.read_bytes() for path in sweep.root.rglob("scores.json")}
    output = plw("clean", sweep.root, "--yes").output
    assert "2.0 KiB  trials/00s0/model  a model that `best` drops\n" in output
    assert "512 B  trials/001s0/checkpoints  checkpoints of a finished trial\n" in output
    assert output.endswith("deleted 8.0 KiB\n")
    # PLW 0.01 has the lowest held-out completion loss, 2.012.
    assert models(sweep) == ["001s0"]
    assert not list(sweep.root.glob("trials/*/checkpoints"))
    assert {path: path.read_bytes() for path in sweep.root.rglob("scores.json")} == scores
    assert plw("clean", sweep.root, "--yes").output == "nothing to delete\n"


def test_clean_deletes_nothing_without_consent(sweep: SweepFolder) -> None:
    assert "add --yes to delete without a terminal" in refused("clean", sweep.root)
    assert models(sweep) == sorted(IDS)


def test_clean_does_not_touch_a_running_sweep(sweep: SweepFolder) -> None:
    with sweep_lock(sweep):
        output = refused("clean", sweep.root, "--yes", "--keep", "none")
    assert "another sweep is running in this folder" in output
    assert models(sweep) == sorted(IDS)


def test_trials_that_can_resume_keep_their_checkpoints(sweep: SweepFolder) -> None:
    record = sweep.read_trial("10s0")
    assert record is not None
    sweep.write_trial(record.model_copy(update={"state": "interrupted"}))
    plw("clean", sweep.root, "--yes", "--keep", "none")
    assert models(sweep) == ["10s0"]
    assert [path.parent.name for path in sweep.root.glob("trials/*/checkpoints")] == ["10s0"]


def test_models_in_an_object_store_are_deleted_there(sweep: SweepFolder, tmp_path: Path) -> None:
    spec = sweep_record([]).spec | {"storage": f"s3://{BUCKET}/runs"}
    sweep.write_sweep(sweep.read_sweep().model_copy(update={"spec": spec}))
    with s3_server() as server:
        store = RemoteSweep(sweep.root, f"s3://{BUCKET}/runs/demo")
        for trial_id in IDS:
            for name in ("model/model.safetensors", "train.json"):
                store.trial_store(trial_id).upload(sweep.trial(trial_id) / name, name)
            write_text(sweep.model(trial_id) / "stored.txt", "s3://\n")
        assert "in the store  trials/00s0/model" in plw("clean", sweep.root, "--yes").output
        assert [name for name in server.names() if "model" in name] == [
            "runs/demo/trials/001s0/model/model.safetensors"
        ]
