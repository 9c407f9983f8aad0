"""Tests of names in MLflow: every benchmark and setting gets a name of its own that it accepts."""

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from orchestrator.tracking.client import redacted_leaves
from orchestrator.tracking.metric_names import mlflow_names
from orchestrator.tracking.values import score_metrics
from tests.orchestrator.sweeps import card


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    folder = tmp_path_factory.mktemp("mlflow")
    return MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("heldout_completion_loss", "heldout_completion_loss"),
        ("arc/easy acc-1.0", "arc/easy acc-1.0"),
        ("mmlu (5-shot)", "mmlu _5-shot_"),
        ("naïve:中文\n✓", "naïve_中文__"),
        ("/a//b/../c/", "_/a/_/b/_/c/_"),
        ("x" * 300, f"{'x' * 241}_0d4e2ca9"),
    ],
)
def test_mlflow_accepts_the_name(name: str, expected: str, client: MlflowClient) -> None:
    assert mlflow_names([name]) == {name: expected}
    run = client.create_run("0")
    entities = {
        "metrics": [Metric(expected, 1.0, 0, 0)],
        "params": [Param(expected, "1")],
        "tags": [RunTag(expected, "1")],
    }
    client.log_batch(run.info.run_id, **entities)
    found = client.get_run(run.info.run_id).data
    assert (found.metrics, found.params) == ({expected: 1.0}, {expected: "1"})


def test_names_that_would_become_equal_stay_different() -> None:
    names = ["a (x)", "a [x]", "a _x_", "b"]
    found = mlflow_names(names)
    assert len(set(found.values())) == 4
    assert found["b"] == "b"
    assert mlflow_names(reversed(names)) == found


def test_scores_with_similar_names_have_metrics_of_their_own(client: MlflowClient) -> None:
    scores = {"m (5)": 0.25, "m [5]": 0.5, "n" * 250: 1.0}
    found = card({"heldout_completion_loss": (0.0, None, None)})
    [one] = found.scores
    named = [
        one.model_copy(update={"name": name, "value": value, "standard_error": None})
        for name, value in scores.items()
    ]
    metrics = score_metrics(found.model_copy(update={"scores": named}))
    assert sorted(metrics.values()) == [0.25, 0.5, 1.0]
    run = client.create_run("0")
    client.log_batch(run.info.run_id, [Metric(key, value, 0, 0) for key, value in metrics.items()])
    assert client.get_run(run.info.run_id).data.metrics == metrics


def test_settings_with_any_key_are_params(client: MlflowClient) -> None:
    settings = {"data": {"columns": {"question (en)": "prompt", "question [en]": "system"}}}
    params = redacted_leaves(settings)
    run = client.create_run("0")
    client.log_batch(run.info.run_id, params=[Param(key, value) for key, value in params.items()])
    assert sorted(client.get_run(run.info.run_id).data.params.values()) == ["prompt", "system"]
    assert all(key.startswith("data.columns.question _en_") for key in params)
