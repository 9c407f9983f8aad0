"""The files that people start from are right."""

from pathlib import Path

from ray.autoscaler._private.util import prepare_config, validate_config
from ruamel.yaml import YAML

from orchestrator.search_rules import grid_points
from orchestrator.spec import load_spec
from trainers.config import TrainConfig
from trainers.config_file import load_config

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


def test_ray_accepts_the_cluster_file() -> None:
    config = YAML(typ="safe").load(ROOT / "cluster.yaml")
    validate_config(prepare_config(config))


def test_the_alpaca_config_is_the_published_recipe() -> None:
    config = load_config(TrainConfig, ROOT / "examples" / "alpaca.yaml")
    assert config.optimizer.learning_rate == 2e-5
    assert config.batch.global_batch_size == 128
    assert config.schedule.epochs == 3
    assert (config.schedule.kind, config.schedule.warmup_ratio) == ("cosine", 0.03)
    assert config.optimizer.weight_decay == 0
    assert (config.data.template, config.data.max_length) == ("alpaca", 512)
    assert config.deepspeed.precision == "bfloat16"
