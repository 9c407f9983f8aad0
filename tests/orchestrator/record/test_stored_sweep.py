"""A sweep whose nodes share no file system: folders of their own, and a store between them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.record.folder import SweepFolder
from orchestrator.record.stored_sweep import StoredSweep, kept_records
from orchestrator.trials.nodes import check_node
from orchestrator.trials.run_trial import is_scored_since
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
    """What the ranks of a trial leave on a worker and in the store."""
    write(root / "trials" / trial_id, "config.json", "metrics.jsonl", "log.txt", "model/weights")
    write(root / "trials" / trial_id, "train.json", "scores.json", "samples.jsonl")
    stored = StoredSweep(root, URI)
    of_trial = stored.of_trial(trial_id)
    for name in ("model/weights", "train.json"):
        of_trial.put(root / "trials" / trial_id / name, name)
    stored.keep("trial", trial_id)


def test_the_head_has_what_a_worker_wrote_but_no_model(server: S3Server, tmp_path: Path) -> None:
    work(tmp_path / "worker", "t1")
    StoredSweep(tmp_path / "head", URI).fetch_records("trial", "t1")
    there = tmp_path / "head" / "trials" / "t1"
    assert (there / "scores.json").read_text() == "scores.json\n"
    assert (there / "metrics.jsonl").read_text() == "metrics.jsonl\n"
    assert [path.name for path in (there / "model").iterdir()] == ["stored.txt"]
    assert (there / "model" / "stored.txt").read_text() == f"{URI}/trials/t1/model\n"
    assert is_scored_since(tmp_path / "head", "t1")


def test_a_model_is_brought_to_where_it_is_scored(server: S3Server, tmp_path: Path) -> None:
    work(tmp_path / "worker", "t1")
    other = StoredSweep(tmp_path / "other", URI)
    other.fetch_records("trial", "t1")
    other.bring_model("t1")
    model = tmp_path / "other" / "trials" / "t1" / "model"
    assert [path.name for path in model.iterdir()] == ["weights"]


def test_a_worker_keeps_no_model_and_the_head_does(server: S3Server, tmp_path: Path) -> None:
    for name in ("worker", "head"):
        work(tmp_path / name, "t1")
    SweepFolder(tmp_path / "head").write_sweep(sweep_record(["t1"]))
    for name, is_kept in (("worker", False), ("head", True)):
        StoredSweep(tmp_path / name, URI).drop_model("t1")
        assert (tmp_path / name / "trials" / "t1" / "model").exists() == is_kept
    assert "runs/mine/trials/t1/model/weights" in server.names()


def test_steps_that_are_being_written_here_are_not_put_back(
    server: S3Server, tmp_path: Path
) -> None:
    work(tmp_path / "worker", "t1")
    path = tmp_path / "worker" / "trials" / "t1" / "metrics.jsonl"
    path.write_text("metrics.jsonl\nand one more\n")
    stored = StoredSweep(tmp_path / "worker", URI)
    stored.fetch_metrics("t1")
    stored.fetch_records("trial", "t1")
    assert path.read_text() == "metrics.jsonl\nand one more\n"


def test_held_out_examples_and_sent_files_are_brought_to_a_worker(
    server: S3Server, tmp_path: Path
) -> None:
    head, worker = tmp_path / "head" / "mine", tmp_path / "worker" / "mine"
    write(head, "bases/b1/heldout.jsonl")
    write(head.parent, "inputs/0123/model/config.json", "inputs/4567/data.jsonl")
    stored = StoredSweep(head, URI)
    stored.put_inputs()
    stored.put_changed({})
    settings = {"data": {"path": str(worker.parent / "inputs/4567/data.jsonl")}}
    model = str(worker.parent / "inputs/0123/model")
    StoredSweep(worker, URI).bring("b1", settings, model)
    assert (worker / "bases/b1/heldout.jsonl").is_file()
    assert (worker.parent / "inputs/0123/model/config.json").is_file()
    assert (worker.parent / "inputs/4567/data.jsonl").is_file()


def test_a_new_head_begins_with_the_records_of_the_lost_one(
    server: S3Server, tmp_path: Path
) -> None:
    lost = SweepFolder(tmp_path / "lost")
    done = trial(0.1)
    lost.write_trial(done)
    lost.write_sweep(sweep_record([done.id]))
    write(lost.root, "bases/b1/heldout.jsonl", "plots/curve.svg", "report.md")
    with kept_records(StoredSweep(lost.root, URI), lost):
        work(tmp_path / "worker", done.id)
    new = SweepFolder(tmp_path / "new")
    StoredSweep(new.root, URI).restore()
    assert new.read_trials() == [done]
    assert new.read_sweep() == lost.read_sweep()
    assert (new.heldout("b1")).is_file()
    assert (new.root / "report.md").is_file()
    assert (new.trial(done.id) / "scores.json").is_file()
    assert not (new.model(done.id) / "weights").exists()


def test_a_store_that_is_away_does_not_stop_the_head(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.foundation.object_store.TRIES", 1)
    folder = SweepFolder(tmp_path / "head")
    folder.write_sweep(sweep_record([]))
    stored = StoredSweep(folder.root, URI)
    with kept_records(stored, folder):
        server.fault = lambda method, path: "denied"
        write(folder.root, "report.md")
    assert "runs/mine/report.md" not in unfaulted(server)
    stored.put_changed({})
    assert "runs/mine/report.md" in server.names()


def unfaulted(server: S3Server) -> list[str]:
    server.fault = lambda method, path: None
    return server.names()


def test_a_node_that_may_not_write_to_the_store_is_refused_with_the_reason(
    server: S3Server, tmp_path: Path
) -> None:
    check_node(tmp_path, URI)
    assert not [name for name in server.names() if not name.endswith("/")]
    server.fault = lambda method, path: "denied" if method in ("PUT", "POST") else None
    with pytest.raises(InputError, match=r"host .* cannot write to the sweep's storage: .*DENIED"):
        check_node(tmp_path, URI)
