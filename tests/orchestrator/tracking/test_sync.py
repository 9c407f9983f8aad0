"""Tests of `plw sync`: rebuild MLflow from the record in any store, after any loss."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from orchestrator.record.folder import SweepFolder
from orchestrator.record.lock import sweep_lock
from orchestrator.tracking.tracker import Tracker
from tests.orchestrator.plw import plw, plw_json, refused
from tests.orchestrator.sweeps import DEMO, UNTUNED, card, trial, write_sweep
from tests.orchestrator.tracking.test_tracker_server import Server, server
from trainers.foundation.files import write_text

__all__ = ["server"]


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    """Return an untracked sweep with done, failed, stopped, waiting and pending trials."""
    failed = trial(0.01, state="failed", error="loss is not finite at step 3")
    states = [trial(0.0), failed, trial(0.1, state="stopped"), trial(0.5, state="pending")]
    waiting = trial(1.0, state="waiting").model_copy(update={"started_at": None})
    folder = write_sweep(
        tmp_path / "demo", [*states, waiting], {"00s0": card(DEMO[0.0])}, card(UNTUNED)
    )
    write_text(folder.report_html, "<p>PLW 0</p>")
    return folder


def content(uri: str, experiment: str = "demo") -> dict[str, Any]:
    """Return all content of an experiment by run name."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return {
        run.info.run_name: _run(client, run) for run in client.search_runs([found.experiment_id])
    }


def _run(client: MlflowClient, run: Any) -> dict[str, Any]:
    run_id = run.info.run_id
    histories = {
        key: [(point.step, point.timestamp, point.value) for point in history]
        for key in run.data.metrics
        for history in [client.get_metric_history(run_id, key)]
    }
    return {
        "status": run.info.status,
        "times": (run.info.start_time, run.info.end_time),
        "params": run.data.params,
        "tags": {k: v for k, v in run.data.tags.items() if k != "mlflow.parentRunId"},
        "metrics": histories,
        "artifacts": sorted(_artifacts(client, run_id)),
    }


def _artifacts(client: MlflowClient, run_id: str, folder: str | None = None) -> list[str]:
    found = []
    for entry in client.list_artifacts(run_id, folder):
        inside = _artifacts(client, run_id, entry.path) if entry.is_dir else [entry.path]
        found += inside
    return found


def test_an_untracked_sweep_is_posted_completely(sweep: SweepFolder, store_uri: str) -> None:
    synced = plw_json("sync", sweep.root, "--tracking-uri", store_uri)
    assert (synced["uri"], synced["experiment"], synced["num_runs"]) == (store_uri, "demo", 3)
    assert synced["is_complete"] is True
    runs = content(store_uri)
    done, parent = runs["PLW 0 · seed 0 · 00s0"], runs["demo"]
    assert (done["status"], done["times"][1] - done["times"][0]) == ("FINISHED", 250_000)
    assert done["params"]["loss.prompt_loss_weight"] == "0.0"
    assert done["metrics"]["train/loss"] == [
        (step, 1_790_000_000_000 + 1000 * step, 4.0 / step) for step in range(1, 5)
    ]
    assert [point[0] for point in done["metrics"]["eval/heldout_completion_loss"]] == [48]
    assert done["artifacts"] == ["samples.jsonl", "scores.json", "settings.yaml"]
    failed, stopped = runs["PLW 0.01 · seed 0 · 001s0"], runs["PLW 0.1 · seed 0 · 01s0"]
    assert (failed["status"], stopped["status"]) == ("FAILED", "KILLED")
    assert failed["tags"]["plw.error"] == "loss is not finite at step 3"
    assert (parent["status"], parent["metrics"]["untuned/quiz.acc"][0][2]) == (*("KILLED", 0.56),)
    assert "report.html" in parent["artifacts"]
    assert len(runs) == 4


def test_syncing_twice_changes_nothing(sweep: SweepFolder, store_uri: str) -> None:
    plw("sync", sweep.root, "--tracking-uri", store_uri)
    before = content(store_uri)
    output = plw("sync", sweep.root).output
    assert output == (
        f"MLflow at {store_uri} has the sweep and 3 trials\nnext: plw ui {sweep.root}\n"
    )
    assert content(store_uri) == before


def test_content_lost_in_mlflow_is_restored(sweep: SweepFolder, store_uri: str) -> None:
    """Cover a deleted run, a deleted artifact, and a database older than the recorded state."""
    database = Path(store_uri.removeprefix("sqlite:///"))
    tracker = Tracker.open(sweep, uri=store_uri, experiment="demo")
    older = database.read_bytes()
    assert tracker.finish("KILLED")
    before = content(store_uri)

    client = MlflowClient(store_uri)
    client.delete_run(tracker.record.trial_run_ids["00s0"])
    for path in database.parent.rglob("report.html"):
        path.unlink()
    plw("sync", sweep.root)
    assert content(store_uri) == before

    database.write_bytes(older)
    plw("sync", sweep.root)
    assert content(store_uri) == before


def test_moving_to_another_store_and_back_creates_no_second_run(
    sweep: SweepFolder, store_uri: str, new_store: Any, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "mlflow.db"
    other.parent.mkdir()
    other.write_bytes(new_store.path.read_bytes())
    plw("sync", sweep.root, "--tracking-uri", store_uri)
    before = content(store_uri)
    plw("sync", sweep.root, "--tracking-uri", f"sqlite:///{other}")
    assert content(f"sqlite:///{other}") == before
    assert plw_json("sync", sweep.root)["uri"] == f"sqlite:///{other}"
    plw("sync", sweep.root, "--tracking-uri", store_uri)
    assert content(store_uri) == before


def test_a_running_sweep_is_rejected(sweep: SweepFolder, store_uri: str) -> None:
    with sweep_lock(sweep):
        output = refused("sync", sweep.root, "--tracking-uri", store_uri)
    assert output == (
        f"error: {sweep.root}: the sweep is running and posts to MLflow itself; "
        "wait until it ends, or stop it with plw stop"
    )


@pytest.mark.slow
def test_a_deleted_database_is_created_again(sweep: SweepFolder, store_uri: str) -> None:
    plw("sync", sweep.root, "--tracking-uri", store_uri)
    before = content(store_uri)
    other = Path(store_uri.removeprefix("sqlite:///")).with_name("again.db")
    # In separate processes, as in practice: MLflow keeps a database open.
    command = [sys.executable, "-m", "orchestrator.cli.main", "sync", str(sweep.root)]
    subprocess.run([*command, "--tracking-uri", f"sqlite:///{other}"], check=True)
    other.unlink()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == f"MLflow at sqlite:///{other} has the sweep and 3 trials"
    assert done.stderr == ""
    assert content(f"sqlite:///{other}") == before


@pytest.mark.slow
def test_a_server_gets_the_same_content_as_a_file(
    sweep: SweepFolder, store_uri: str, server: Server
) -> None:
    plw("sync", sweep.root, "--tracking-uri", server.uri)
    before = content(server.uri)
    assert len(before) == 4
    plw("sync", sweep.root)
    assert content(server.uri) == before
    server.stop()
    assert f"MLflow cannot be reached at {server.uri}" in refused("sync", sweep.root)
