"""Tests of the tracker against a real MLflow store; a new Tracker simulates a new process."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from orchestrator.record.folder import SweepFolder
from orchestrator.report.pages import write_report
from orchestrator.tracking.tracker import Tracker
from tests.orchestrator.conftest import NewStore
from tests.orchestrator.sweeps import (
    DEMO,
    card,
    sweep_record,
    trial,
    write_card,
    write_metrics,
    write_sweep,
)
from trainers.foundation.errors import InputError
from trainers.foundation.files import write_text

FIRST = trial(0.0).id


def track(folder: SweepFolder, uri: str) -> Tracker:
    return Tracker.open(folder, uri=uri, experiment="plw")


def history(client: MlflowClient, run_id: str, key: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, key))


def all_runs(client: MlflowClient) -> list[Any]:
    experiment = client.get_experiment_by_name("plw")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def artifacts(client: MlflowClient, run_id: str, path: str | None = None) -> list[str]:
    return sorted(entry.path for entry in client.list_artifacts(run_id, path))


def run_of(tracker: Tracker, trial_id: str) -> str:
    return tracker.record.trial_run_ids[trial_id]


def test_importing_the_tracker_imports_no_mlflow() -> None:
    code = (
        "import sys, orchestrator.tracking.tracker, orchestrator.report.pages\n"
        "print('mlflow' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "False\n"


def test_a_first_sweep_creates_its_store_without_output(new_store: NewStore) -> None:
    assert (new_store.stdout, new_store.stderr) == ("", "")
    artifact_folders = {path.name for path in (new_store.path.parent / "mlartifacts").iterdir()}
    # One for the sweep, four for its trials, one for all models.
    assert len(artifact_folders) == 6


def test_parent_run_has_the_sweeps_name_and_spec(
    demo_sweep: SweepFolder, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "an-enclosing-run")
    tracker = track(demo_sweep, store_uri)
    run = MlflowClient(store_uri).get_run(tracker.record.parent_run_id)
    assert run.info.run_name == "demo"
    assert run.info.status == "RUNNING"
    assert run.data.tags["spec.search.method"] == "grid"
    assert run.data.tags["mlflow.source.git.commit"] == "57793e2"
    assert demo_sweep.read_tracking() == tracker.record


def test_trial_becomes_a_child_run_with_settings_metrics_scores_and_files(
    demo_sweep: SweepFolder, store_uri: str
) -> None:
    tracker = track(demo_sweep, store_uri)
    assert tracker.sync_trial(FIRST)
    client = MlflowClient(store_uri)
    run = client.get_run(run_of(tracker, FIRST))
    assert run.info.run_name == "PLW 0 · seed 0 · 00s0"
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 250_000
    assert run.data.tags["mlflow.parentRunId"] == tracker.record.parent_run_id
    assert (run.data.tags["plw.trial_id"], run.data.tags["plw.state"]) == (FIRST, "done")
    assert run.data.params["loss.prompt_loss_weight"] == "0.0"
    assert run.data.params["deepspeed.gradient_checkpointing"] == "false"
    run_id = run.info.run_id
    assert history(client, run_id, "train/loss") == [(1, 4.0), (2, 2.0), (3, 4 / 3), (4, 1.0)]
    assert client.get_metric_history(run_id, "train/loss")[0].timestamp == 1_790_000_001_000
    never = {f"train/{key}" for key in ("prompt_loss", "step", "time", "total_steps")}
    assert not never & run.data.metrics.keys()
    assert run.data.metrics["eval/quiz.acc"] == 0.75
    assert run.data.metrics["interval/quiz.acc_ci_low"] == 0.632
    assert run.data.metrics["interval/quiz.acc_ci_high"] == 0.840
    assert run.data.metrics["interval/heldout_completion_loss_standard_error"] == 0.05
    assert artifacts(client, run_id) == ["samples.jsonl", "scores.json", "settings.yaml"]


def test_pending_trial_has_no_run(tmp_path: Path, store_uri: str) -> None:
    folder = write_sweep(tmp_path / "s", [trial(0.1, state="pending")], {})
    tracker = track(folder, store_uri)
    assert tracker.sync_trial(trial(0.1).id)
    assert tracker.record.trial_run_ids == {}


def counts(client: MlflowClient, run_ids: list[str]) -> dict[str, int]:
    return {
        f"{run_id}/{key}": len(client.get_metric_history(run_id, key))
        for run_id in run_ids
        for key in client.get_run(run_id).data.metrics
    }


@pytest.mark.parametrize("lost", [[], ["tracking_state.json"], ["tracking.json"], "both"])
def test_syncing_again_from_a_new_process_adds_no_run_and_no_point(
    demo_sweep: SweepFolder, store_uri: str, lost: list[str] | str
) -> None:
    first = track(demo_sweep, store_uri)
    assert first.finish("FINISHED")
    client = MlflowClient(store_uri)
    run_ids = [first.record.parent_run_id, *first.record.trial_run_ids.values()]
    before = counts(client, run_ids)
    assert len(run_ids) == 5
    assert before[f"{run_ids[1]}/train/loss"] == 4

    for name in ["tracking_state.json", "tracking.json"] if lost == "both" else lost:
        for path in demo_sweep.root.rglob(name):
            path.unlink()
    second = track(demo_sweep, store_uri)
    assert second.finish("FINISHED")
    assert second.record == first.record
    assert len(all_runs(client)) == 5
    assert counts(client, run_ids) == before


def test_kill_between_the_creation_of_a_run_and_its_record_creates_no_second_run(
    demo_sweep: SweepFolder, store_uri: str
) -> None:
    first = track(demo_sweep, store_uri)
    before_the_run = demo_sweep.tracking_json.read_text()
    first.sync_trial(FIRST)
    write_text(demo_sweep.tracking_json, before_the_run)
    (demo_sweep.trial(FIRST) / "tracking_state.json").unlink()

    second = track(demo_sweep, store_uri)
    second.sync_trial(FIRST)
    assert run_of(second, FIRST) == run_of(first, FIRST)
    assert len(all_runs(MlflowClient(store_uri))) == 2


def test_resume_after_a_kill_between_post_and_count_adds_no_point(
    tmp_path: Path, store_uri: str
) -> None:
    running = trial(0.1, state="training")
    folder = write_sweep(tmp_path / "s", [running], {})
    first = track(folder, store_uri)
    first.sync_trial(running.id)
    state_path = folder.trial(running.id) / "tracking_state.json"
    counted = state_path.read_text()
    write_metrics(folder, running.id, range(1, 7))
    first.sync_trial(running.id)
    # After the kill, MLflow has steps 5 and 6 but the count ends at 4. The trainer resumes from 4.
    write_text(state_path, counted)
    assert json.loads(counted)["last_step"] == 4
    write_metrics(folder, running.id, range(1, 9), start=1_790_009_000.0)

    second = track(folder, store_uri)
    assert second.sync_trial(running.id)
    points = history(MlflowClient(store_uri), run_of(second, running.id), "train/grad_norm")
    assert points == [(step, 1.0) for step in range(1, 9)]


def test_resumed_trial_that_repeats_steps_posts_only_the_new_ones(
    tmp_path: Path, store_uri: str
) -> None:
    running = trial(0.1, state="training")
    folder = write_sweep(tmp_path / "s", [running], {})
    tracker = track(folder, store_uri)
    tracker.sync_trial(running.id)
    write_metrics(folder, running.id, range(1, 3), start=1_790_005_000.0)
    tracker.sync_trial(running.id)
    write_metrics(folder, running.id, range(1, 6), start=1_790_005_000.0)
    tracker.sync_trial(running.id)
    points = history(MlflowClient(store_uri), run_of(tracker, running.id), "train/grad_norm")
    assert points == [(step, 1.0) for step in range(1, 6)]


def test_a_round_does_not_read_the_posted_lines_again(
    tmp_path: Path, store_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    running = trial(0.1, state="training")
    folder = write_sweep(tmp_path / "s", [running], {})
    tracker = track(folder, store_uri)
    metrics = folder.metrics(running.id)
    write_metrics(folder, running.id, range(1, 4))
    tracker.sync_trial(running.id)
    for step in (4, 5):
        with metrics.open("a") as file:
            file.write(json.dumps({"step": step, "time": 1_790_000_009.0, "grad_norm": 2.0}) + "\n")
        tracker.sync_trial(running.id)
        with metrics.open("r+b") as file:
            # A warning would show that this line was read again.
            file.write(b"?")
    points = history(MlflowClient(store_uri), run_of(tracker, running.id), "train/grad_norm")
    assert points == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0)]
    assert not caplog.messages


def test_incomplete_last_line_is_posted_once_it_is_complete(tmp_path: Path, store_uri: str) -> None:
    running = trial(0.1, state="training")
    folder = write_sweep(tmp_path / "s", [running], {})
    metrics = folder.metrics(running.id)
    whole = metrics.read_text()
    write_text(metrics, whole + '{"step": 5, "time": 17900')
    tracker = track(folder, store_uri)
    tracker.sync_trial(running.id)
    client = MlflowClient(store_uri)
    run_id = run_of(tracker, running.id)
    assert [step for step, _ in history(client, run_id, "train/loss")] == [1, 2, 3, 4]
    write_text(metrics, whole + '{"step": 5, "time": 1790000005.0, "loss": 0.5}\n')
    tracker.sync_trial(running.id)
    assert history(client, run_id, "train/loss")[-1] == (5, 0.5)


def test_metrics_beyond_one_request_are_all_posted(tmp_path: Path, store_uri: str) -> None:
    running = trial(0.1, state="training")
    folder = write_sweep(tmp_path / "s", [running], {})
    # 6 metrics per step make 1,500 points, which need two requests.
    write_metrics(folder, running.id, range(1, 251))
    tracker = track(folder, store_uri)
    assert tracker.sync_trial(running.id)
    points = history(MlflowClient(store_uri), run_of(tracker, running.id), "train/num_tokens")
    assert points == [(step, 4096.0) for step in range(1, 251)]


def test_failed_trial_shows_its_error_and_log_and_runs_again_when_resumed(
    tmp_path: Path, store_uri: str
) -> None:
    failed = trial(0.1, state="failed", error="the loss of step 3 is nan")
    folder = write_sweep(tmp_path / "s", [failed], {})
    write_text(folder.trial(failed.id) / "log.txt", "x" * 100_000 + "\nFileNotFound: weights\n")
    tracker = track(folder, store_uri)
    tracker.sync_trial(failed.id)
    client = MlflowClient(store_uri)
    run_id = run_of(tracker, failed.id)
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["plw.error"]) == ("FAILED", "the loss of step 3 is nan")
    assert artifacts(client, run_id) == ["log_tail.txt", "settings.yaml"]
    log = Path(client.download_artifacts(run_id, "log_tail.txt", str(tmp_path))).read_text()
    assert len(log) == 65_536
    assert log.endswith("FileNotFound: weights\n")

    folder.write_trial(trial(0.1, state="training"))
    tracker.sync_trial(failed.id)
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["plw.error"]) == ("RUNNING", "")
    write_card(folder.trial(failed.id), card(DEMO[0.1]))
    folder.write_trial(trial(0.1))
    tracker.sync_trial(failed.id)
    assert client.get_run(run_id).info.status == "FINISHED"


def test_another_store_gets_everything(
    demo_sweep: SweepFolder, store_uri: str, tmp_path: Path
) -> None:
    track(demo_sweep, store_uri).finish("FINISHED")
    other = tmp_path / "other" / "mlflow.db"
    other.parent.mkdir()
    other.write_bytes(Path(store_uri.removeprefix("sqlite:///")).read_bytes())
    client = MlflowClient(f"sqlite:///{other}")
    for run in all_runs(client):
        client.delete_run(run.info.run_id)

    tracker = track(demo_sweep, f"sqlite:///{other}")
    assert tracker.finish("FINISHED")
    assert len(all_runs(client)) == 5
    points = history(client, run_of(tracker, FIRST), "train/loss")
    assert points == [(1, 4.0), (2, 2.0), (3, 4 / 3), (4, 1.0)]


def test_deleted_experiment_is_an_input_error(demo_sweep: SweepFolder, store_uri: str) -> None:
    client = MlflowClient(store_uri)
    client.delete_experiment(client.create_experiment("plw"))
    with pytest.raises(InputError, match="experiment 'plw' was deleted"):
        track(demo_sweep, store_uri)


def test_passwords_reach_neither_mlflow_nor_the_record(tmp_path: Path, store_uri: str) -> None:
    secret = "http://ann:s3cret@host:5000"
    failed = trial(0.1, state="failed", error=f"no answer from {secret}")
    spec = sweep_record([]).spec | {"tracking": {"uri": secret, "experiment": None}}
    folder = write_sweep(tmp_path / "s", [failed], {}, spec=spec)
    write_text(folder.trial(failed.id) / "log.txt", f"tracking to {secret}\n")
    write_report(folder)
    tracker = track(folder, store_uri)
    assert tracker.finish("FAILED")
    client = MlflowClient(store_uri)
    parent = client.get_run(tracker.record.parent_run_id)
    assert parent.data.tags["spec.tracking.uri"] == "http://host:5000"
    child = client.get_run(run_of(tracker, failed.id))
    assert child.data.tags["plw.error"] == "no answer from http://host:5000"
    for run in (parent, child):
        root = Path(client.download_artifacts(run.info.run_id, ""))
        texts = [path.read_bytes() for path in root.rglob("*") if path.is_file()]
        assert len(texts) >= 2
        assert not any(b"s3cret" in text for text in texts)
    assert b"s3cret" not in folder.tracking_json.read_bytes()
    assert b"s3cret" not in Path(store_uri.removeprefix("sqlite:///")).read_bytes()


def test_long_setting_is_truncated_in_the_params_and_complete_in_the_artifact(
    tmp_path: Path, store_uri: str
) -> None:
    running = trial(0.1, state="training")
    path = "/data/" + "x" * 600
    settings = running.settings | {"data": running.settings["data"] | {"path": path}}
    running = running.model_copy(update={"settings": settings})
    folder = write_sweep(tmp_path / "s", [running], {})
    tracker = track(folder, store_uri)
    assert tracker.sync_trial(running.id)
    client = MlflowClient(store_uri)
    run_id = run_of(tracker, running.id)
    shown = client.get_run(run_id).data.params["data.path"]
    assert (len(shown), shown[-4:]) == (500, "x...")
    assert path in Path(client.download_artifacts(run_id, "settings.yaml")).read_text()


def test_refused_post_does_not_raise_and_the_next_sync_repeats_it(
    demo_sweep: SweepFolder, store_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = track(demo_sweep, store_uri)
    tracker.sync_trial(FIRST)
    client = MlflowClient(store_uri)
    client.delete_run(run_of(tracker, FIRST))
    lower = DEMO[0.0] | {"quiz.acc": (0.5, 0.4, 0.6)}
    write_card(demo_sweep.trial(FIRST), card(lower))
    assert tracker.sync_trial(FIRST) is False
    assert not tracker.finish("FINISHED")
    assert len([r for r in caplog.records if r.name == "orchestrator.tracking.tracker"]) == 1
    client.restore_run(run_of(tracker, FIRST))
    assert tracker.sync_trial(FIRST)
    metrics = client.get_run(run_of(tracker, FIRST)).data.metrics
    assert metrics["eval/quiz.acc"] == 0.5
