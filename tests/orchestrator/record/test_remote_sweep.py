"""A sweep on nodes without a shared file system, with an object store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.record.folder import SweepFolder
from orchestrator.record.remote_sweep import RemoteSweep, upload_records
from orchestrator.trials.nodes import check_node
from orchestrator.trials.run_trial import is_scored_after_training
from tests.object_stores import BUCKET, S3Server, s3_server
from tests.orchestrator.sweeps import sweep_record, trial
from trainers.foundation.errors import InputError

URI = f"s3://{BUCKET}/runs/mine"


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")


def work(root: Path, trial_id: str) -> None:
    """Write a trial's files as its ranks do, on a worker and in the store."""
    write(root / "trials" / trial_id, "config.json", "metrics.jsonl", "log.txt", "model/weights")
    write(root / "trials" / trial_id, "train.json", "scores.json", "samples.jsonl")
    stored = RemoteSweep(root, URI)
    trial_store = stored.trial_store(trial_id)
    for name in ("model/weights", "train.json"):
        trial_store.upload(root / "trials" / trial_id / name, name)
    stored.upload("trial", trial_id)


def test_head_downloads_the_files_of_a_worker_without_the_model(
    server: S3Server, tmp_path: Path
) -> None:
    work(tmp_path / "worker", "t1")
    RemoteSweep(tmp_path / "head", URI).download_records("trial", "t1")
    there = tmp_path / "head" / "trials" / "t1"
    assert (there / "scores.json").read_text() == "scores.json\n"
    assert (there / "metrics.jsonl").read_text() == "metrics.jsonl\n"
    assert [path.name for path in (there / "model").iterdir()] == ["stored.txt"]
    assert (there / "model" / "stored.txt").read_text() == f"{URI}/trials/t1/model\n"
    assert is_scored_after_training(tmp_path / "head", "t1")


def test_model_is_downloaded_for_scoring(server: S3Server, tmp_path: Path) -> None:
    work(tmp_path / "worker", "t1")
    other = RemoteSweep(tmp_path / "other", URI)
    other.download_records("trial", "t1")
    other.download_model("t1")
    model = tmp_path / "other" / "trials" / "t1" / "model"
    assert [path.name for path in model.iterdir()] == ["weights"]


def test_outputs_reach_the_head_and_the_scorers_of_other_trials(
    server: S3Server, tmp_path: Path
) -> None:
    name = "outputs/pandalm_prompts.alpaca_eval.json"
    write(tmp_path / "worker" / "trials" / "t1", name)
    work(tmp_path / "worker", "t1")
    RemoteSweep(tmp_path / "head", URI).download_records("trial", "t1")
    RemoteSweep(tmp_path / "scorer", URI).download_outputs("t1")
    for node in ("head", "scorer"):
        folder = SweepFolder(tmp_path / node)
        assert folder.pandalm_outputs("t1").read_text() == f"{name}\n"


def test_worker_removes_its_model_and_the_head_keeps_it(server: S3Server, tmp_path: Path) -> None:
    for name in ("worker", "head"):
        work(tmp_path / name, "t1")
    SweepFolder(tmp_path / "head").write_sweep(sweep_record(["t1"]))
    for name, is_kept in (("worker", False), ("head", True)):
        RemoteSweep(tmp_path / name, URI).remove_local_model("t1")
        assert (tmp_path / name / "trials" / "t1" / "model").exists() == is_kept
    assert "runs/mine/trials/t1/model/weights" in server.names()


def test_local_metrics_that_are_longer_are_not_overwritten(
    server: S3Server, tmp_path: Path
) -> None:
    work(tmp_path / "worker", "t1")
    path = tmp_path / "worker" / "trials" / "t1" / "metrics.jsonl"
    path.write_text("metrics.jsonl\nand one more\n")
    stored = RemoteSweep(tmp_path / "worker", URI)
    stored.download_metrics("t1")
    stored.download_records("trial", "t1")
    assert path.read_text() == "metrics.jsonl\nand one more\n"


def test_worker_downloads_heldout_examples_and_submitted_files(
    server: S3Server, tmp_path: Path
) -> None:
    head, worker = tmp_path / "head" / "mine", tmp_path / "worker" / "mine"
    write(head, "bases/b1/heldout.jsonl")
    write(head.parent, "inputs/0123/model/config.json", "inputs/4567/data.jsonl")
    stored = RemoteSweep(head, URI)
    stored.upload_inputs()
    stored.upload_changed({})
    settings = {"data": {"path": str(worker.parent / "inputs/4567/data.jsonl")}}
    model = str(worker.parent / "inputs/0123/model")
    RemoteSweep(worker, URI).download_inputs("b1", settings, model)
    assert (worker / "bases/b1/heldout.jsonl").is_file()
    assert (worker.parent / "inputs/0123/model/config.json").is_file()
    assert (worker.parent / "inputs/4567/data.jsonl").is_file()


def test_new_head_restores_the_records_of_the_lost_one(server: S3Server, tmp_path: Path) -> None:
    lost = SweepFolder(tmp_path / "lost")
    done = trial(0.1)
    lost.write_trial(done)
    lost.write_sweep(sweep_record([done.id]))
    write(lost.root, "bases/b1/heldout.jsonl", "plots/curve.svg", "report.md")
    with upload_records(RemoteSweep(lost.root, URI), lost):
        work(tmp_path / "worker", done.id)
    new = SweepFolder(tmp_path / "new")
    RemoteSweep(new.root, URI).restore()
    assert new.read_trials() == [done]
    assert new.read_sweep() == lost.read_sweep()
    assert (new.heldout("b1")).is_file()
    assert (new.root / "report.md").is_file()
    assert (new.trial(done.id) / "scores.json").is_file()
    assert not (new.model(done.id) / "weights").exists()


def test_unreachable_store_does_not_stop_the_head(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.foundation.object_store.MAX_ATTEMPTS", 1)
    folder = SweepFolder(tmp_path / "head")
    folder.write_sweep(sweep_record([]))
    stored = RemoteSweep(folder.root, URI)
    with upload_records(stored, folder):
        server.fault = lambda method, path: "denied"
        write(folder.root, "report.md")
    assert "runs/mine/report.md" not in unfaulted(server)
    stored.upload_changed({})
    assert "runs/mine/report.md" in server.names()


def unfaulted(server: S3Server) -> list[str]:
    server.fault = lambda method, path: None
    return server.names()


def test_node_without_write_access_to_the_store_is_rejected_with_the_reason(
    server: S3Server, tmp_path: Path
) -> None:
    check_node(tmp_path, URI)
    assert not [name for name in server.names() if not name.endswith("/")]
    server.fault = lambda method, path: "denied" if method in ("PUT", "POST") else None
    with pytest.raises(InputError, match=r"host .* cannot write to the sweep's storage: .*DENIED"):
        check_node(tmp_path, URI)
