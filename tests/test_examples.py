"""The files that people start from are right."""

import json
from pathlib import Path

import pytest
from ray.autoscaler._private.util import prepare_config, validate_config
from ruamel.yaml import YAML

from orchestrator.spec.search_rules import grid_points
from orchestrator.spec.sweep_spec import load_spec
from orchestrator.spec.two_weights import ratio_of
from trainers.config import TrainConfig
from trainers.foundation.settings_file import load_config

ROOT = Path(__file__).parents[1]


def test_the_demo_spec_is_a_grid_over_four_weights() -> None:
    spec = load_spec(ROOT / "examples" / "demo.yaml")
    assert [point["loss.prompt_loss_weight"] for point in grid_points(spec.search)] == [
        0,
        0.01,
        0.242,
        1,
    ]


def test_the_demo_spec_has_two_lines_to_edit() -> None:
    lines = (ROOT / "examples" / "demo.yaml").read_text().splitlines()
    edits = [line.split("#")[0].strip() for line in lines if "# edit:" in line]
    assert edits == ["path: demo:smollm2-135m-instruct", "path: demo:python-docs-short"]


def test_the_example_of_two_weights_has_pairs_of_equal_ratio_and_adam_that_ignores_a_factor() -> (
    None
):
    spec = load_spec(ROOT / "examples" / "two-weights.yaml")
    ratios = [ratio_of(*point.values()) for point in grid_points(spec.search)]
    assert ratios == [0.0, 0.0, 0.2, 0.1, 0.4, 0.2]
    assert spec.search.seeds == [0, 1, 2]
    assert spec.loss.normalization == "completion"
    assert (spec.optimizer.epsilon, spec.optimizer.max_grad_norm) == (1e-12, 0)


CLUSTERS = ("cluster.yaml", "examples/clusters/gcp.yaml", "examples/clusters/on-premise.yaml")


@pytest.mark.parametrize("name", CLUSTERS)
def test_ray_accepts_the_cluster_file(name: str) -> None:
    config = YAML(typ="safe").load(ROOT / name)
    validate_config(prepare_config(config))


@pytest.mark.parametrize("name", [*CLUSTERS, "examples/clusters/kuberay.yaml"])
def test_at_most_five_lines_are_to_be_edited(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    assert 3 <= sum("# edit" in line for line in lines) <= 5


@pytest.mark.parametrize("name", CLUSTERS)
def test_clusters_keep_their_pages_on_loopback_and_want_a_token(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "--dashboard-host=127.0.0.1" in text
    assert "mlflow server --host 127.0.0.1" in text
    starts = text.count("ray start") - text.split("\nfile_mounts")[0].count("ray start")
    tokens = text.count("RAY_AUTH_MODE=token")
    # The workers of one's own are started by join.sh.
    joins = "plw-join.sh $RAY_HEAD_IP" in text
    assert tokens == starts == (1 if joins else 2)


def test_the_kubernetes_job_has_a_head_for_drivers_and_workers_from_zero() -> None:
    job = YAML(typ="safe").load(ROOT / "examples" / "clusters" / "kuberay.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    resources = json.loads(json.loads(cluster["headGroupSpec"]["rayStartParams"]["resources"]))
    assert resources == {"plw_driver": 1000}
    [workers] = cluster["workerGroupSpecs"]
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (0, 0, 8)
    assert cluster["authOptions"] == {"mode": "token"}


def test_the_alpaca_config_is_the_published_recipe() -> None:
    config = load_config(TrainConfig, ROOT / "examples" / "alpaca.yaml")
    assert config.optimizer.learning_rate == 2e-5
    assert config.batch.global_batch_size == 128
    assert config.schedule.epochs == 3
    assert (config.schedule.kind, config.schedule.warmup_ratio) == ("cosine", 0.03)
    assert config.optimizer.weight_decay == 0
    assert (config.data.template, config.data.max_length) == ("alpaca", 512)
    assert config.deepspeed.precision == "bfloat16"
