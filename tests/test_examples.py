"""Examples: specs load, Ray accepts the cluster files, the Alpaca recipe is the published one."""

import gzip
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from ray.autoscaler._private.util import prepare_config, validate_config
from ruamel.yaml import YAML

from orchestrator.spec.search_points import grid_points
from orchestrator.spec.sweep_spec import load_spec
from orchestrator.spec.two_weights import ratio_of
from trainers.config import TrainConfig
from trainers.foundation.settings_file import load_config

ROOT = Path(__file__).parents[1]


def test_the_demo_spec_repeats_three_weights_with_three_seeds() -> None:
    search = load_spec(ROOT / "examples" / "demo.yaml").search
    assert [point["loss.prompt_loss_weight"] for point in grid_points(search)] == [0, 0.242, 1]
    assert search.seeds == [0, 1, 2]


def test_the_demo_spec_has_two_lines_to_edit() -> None:
    lines = (ROOT / "examples" / "demo.yaml").read_text().splitlines()
    edits = [line.split("#")[0].strip() for line in lines if "# edit:" in line]
    assert edits == ["path: demo:smollm2-135m-instruct", "path: demo:python-docs-short"]


def test_the_readme_of_the_examples_lists_every_file() -> None:
    text = (ROOT / "examples" / "README.md").read_text()
    files = [path for path in (ROOT / "examples").rglob("*.*") if path.name != "README.md"]
    assert len(files) == 10
    names = [str(path.relative_to(ROOT / "examples")) for path in files]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_two_weights_example_has_equal_ratios_and_a_scale_invariant_adam() -> None:
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
def test_a_cluster_file_has_three_to_five_lines_to_edit(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    assert 3 <= sum("# edit" in line for line in lines) <= 5


@pytest.mark.parametrize("name", CLUSTERS)
def test_clusters_serve_pages_on_loopback_and_require_a_token(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "--dashboard-host=127.0.0.1" in text
    assert "mlflow server --host 127.0.0.1" in text
    starts = text.count("ray start") - text.split("\nfile_mounts")[0].count("ray start")
    tokens = text.count("RAY_AUTH_MODE=token")
    # join.sh starts the on-premise workers.
    joins = "plw-join.sh $RAY_HEAD_IP" in text
    assert tokens == starts == (1 if joins else 2)


def test_the_kubernetes_job_runs_drivers_on_the_head_and_scales_workers_from_0() -> None:
    job = YAML(typ="safe").load(ROOT / "examples" / "clusters" / "kuberay.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    resources = json.loads(json.loads(cluster["headGroupSpec"]["rayStartParams"]["resources"]))
    assert resources == {"plw_driver": 1000}
    [workers] = cluster["workerGroupSpecs"]
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (0, 0, 8)
    assert cluster["authOptions"] == {"mode": "token"}


def kuberay_schema() -> dict[str, Any]:
    """Return KubeRay's schema of a RayJob; as the API server does, with unknown fields rejected."""
    path = ROOT / "tests" / "cluster" / "schemas" / "kuberay-1.7.0-rayjob.json.gz"
    schema: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    pending: list[Any] = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending += node
        if not isinstance(node, dict):
            continue
        if node.get("x-kubernetes-int-or-string"):
            node.pop("pattern", None)
        is_open = node.get("x-kubernetes-preserve-unknown-fields")
        if isinstance(node.get("properties"), dict) and not is_open:
            node.setdefault("additionalProperties", False)
        pending += node.values()
    # The API server knows the fields of metadata itself.
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def test_the_kubernetes_job_fits_kuberay_s_schema() -> None:
    job = YAML(typ="safe").load(ROOT / "examples" / "clusters" / "kuberay.yaml")
    validator = Draft7Validator(kuberay_schema())
    assert [error.message for error in validator.iter_errors(job)] == []
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 0
    job["spec"]["backoffLimit"] = "two"
    errors = sorted(error.message for error in validator.iter_errors(job))
    assert errors == [
        "'two' is not of type 'integer'",
        "Additional properties are not allowed ('minReplica' was unexpected)",
    ]


@pytest.mark.parametrize(("code", "ends_with"), [(0, 0), (3, 0), (1, 1), (2, 2), (130, 130)])
def test_a_kubernetes_job_with_failed_trials_is_not_repeated(
    code: int, ends_with: int, tmp_path: Path
) -> None:
    job = YAML(typ="safe").load(ROOT / "examples" / "clusters" / "kuberay.yaml")
    (tmp_path / "plw").write_text(f"#!/bin/sh\nexit {code}\n")
    (tmp_path / "plw").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    command = shlex.split(job["spec"]["entrypoint"])
    assert subprocess.run(command, env=environment, check=False).returncode == ends_with


def test_the_alpaca_config_is_the_published_recipe() -> None:
    config = load_config(TrainConfig, ROOT / "examples" / "alpaca.yaml")
    assert config.optimizer.learning_rate == 2e-5
    assert config.batch.global_batch_size == 128
    assert config.schedule.epochs == 3
    assert (config.schedule.kind, config.schedule.warmup_ratio) == ("cosine", 0.03)
    assert config.optimizer.weight_decay == 0
    assert (config.data.template, config.data.max_length) == ("alpaca", 512)
    assert config.data.drop == ("empty",)
    assert config.deepspeed.precision == "bfloat16"
