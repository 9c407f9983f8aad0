"""Tests of the data, the model and the system metrics of a trial's run in MLflow."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from orchestrator.record.folder import SweepFolder
from orchestrator.tracking.tracker import Tracker
from tests.orchestrator.sweeps import START
from tests.orchestrator.tracking.test_tracker import FIRST, history, run_of, track
from trainers.foundation.files import write_text


def models_of(tracker: Tracker, client: MlflowClient) -> list[Any]:
    found = client.search_logged_models([tracker.record.experiment_id])
    return sorted(found, key=lambda model: str(model.name))


def test_a_finished_trial_has_one_registrable_model_with_scores(
    demo_sweep: SweepFolder, store_uri: str
) -> None:
    client = MlflowClient(store_uri)
    tracker = track(demo_sweep, store_uri)
    tracker.finish("FINISHED")
    # Verified against the database, as after a kill or a loss of the recorded state.
    again = Tracker.open(demo_sweep, uri=store_uri, experiment="plw", is_verified=True)
    again.finish("FINISHED")
    models = models_of(again, client)
    assert [(model.name, model.params["loss.prompt_loss_weight"]) for model in models] == [
        ("plw-0-seed-0-00s0", "0.0"),
        ("plw-0_01-seed-0-001s0", "0.01"),
        ("plw-0_1-seed-0-01s0", "0.1"),
        ("plw-1-seed-0-10s0", "1.0"),
    ]
    model = models[0]
    assert model.status == "READY"
    assert model.source_run_id == run_of(tracker, FIRST)
    assert {m.key: m.value for m in model.metrics}["eval/quiz.acc"] == 0.75
    [output] = client.get_run(model.source_run_id).outputs.model_outputs
    assert output.model_id == model.model_id
    client.create_registered_model("best")
    version = client.create_model_version(
        "best", model.artifact_location, model.source_run_id, model_id=model.model_id
    )
    assert (version.version, version.status) == (1, "READY")
    [link] = Path(model.artifact_location.removeprefix("file://")).glob("*")
    content = json.loads(link.read_text())
    assert (link.name, content["trial"]) == ("model.json", FIRST)
    assert content["path"] == str(demo_sweep.model(FIRST))


def test_a_run_has_its_data_once(demo_sweep: SweepFolder, store_uri: str) -> None:
    client = MlflowClient(store_uri)
    for _ in range(2):
        tracker = Tracker.open(demo_sweep, uri=store_uri, experiment="plw", is_verified=True)
        tracker.finish("FINISHED")
    [found] = client.get_run(run_of(tracker, FIRST)).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("demo:python-docs-short", "a1b2c3d4")
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "training")]


def test_system_metrics_are_posted_once(demo_sweep: SweepFolder, store_uri: str) -> None:
    client = MlflowClient(store_uri)
    path = demo_sweep.system_metrics(FIRST)
    lines = [
        {"step": step, "time": START + 10 * step, "system/cpu_utilization_percentage": 50.0 + step}
        for step in range(3)
    ]
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines[:2]))
    tracker = track(demo_sweep, store_uri)
    tracker.sync_trial(FIRST)
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
    tracker.sync_trial(FIRST)
    run_id = run_of(tracker, FIRST)
    name = "system/cpu_utilization_percentage"
    assert history(client, run_id, name) == [(0, 50.0), (1, 51.0), (2, 52.0)]


def test_an_interrupted_post_creates_no_second_model(
    demo_sweep: SweepFolder, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = track(demo_sweep, store_uri)

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("unavailable")

    with monkeypatch.context() as cut:
        cut.setattr(MlflowClient, "log_model_artifacts", fail)
        assert not tracker.sync_trial(FIRST)
    assert tracker.sync_trial(FIRST)
    [model] = models_of(tracker, MlflowClient(store_uri))
    assert (model.name, model.status) == ("plw-0-seed-0-00s0", "READY")
