"""`plw init`: specs that people start from, and the schema for their editors."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from orchestrator.spec.init import PRESETS
from orchestrator.spec.search_rules import grid_points
from orchestrator.spec.sweep_spec import load_spec
from tests.orchestrator.plw import plw, plw_json, refused
from trainers.foundation.settings_file import _plain, read_yaml

EXAMPLES = Path(__file__).parents[3] / "examples"
PAPER = [0, 5e-4, 2.236e-3, 1e-2, 2.463e-2, 5e-2, 1e-1, 2.463e-1, 5e-1, 1]


def written(path: Path, preset: str) -> dict[str, Any]:
    """The content of a preset as `plw init` writes it."""
    plw("init", path, "--preset", preset)
    content: dict[str, Any] = _plain(read_yaml(path))
    return content


def test_the_demo_is_written_unless_another_preset_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert plw("init").output == "wrote sweep.yaml\nnext: plw plan sweep.yaml\n"
    text = Path("sweep.yaml").read_text()
    assert text.startswith((EXAMPLES / "demo.yaml").read_text())
    assert load_spec(Path("sweep.yaml")).name == "sweep"


def test_a_file_that_is_there_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine\n")
    assert refused("init", path) == (
        f"error: {path}: there is such a file already; give another name, or --force to replace it"
    )
    assert path.read_text() == "mine\n"
    assert plw_json("init", path, "--force") == {"path": str(path), "next": f"plw plan {path}"}
    assert load_spec(path).name == "mine"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refused("init", tmp_path) == f"error: {tmp_path}: is a folder; name a file in it"
    assert refused("init", ".") == "error: .: is a folder; name a file in it"
    below = tmp_path / "file" / "sweep.yaml"
    assert f"error: {below}: cannot be written: " in refused("init", below)


def test_the_grid_has_five_weights_and_three_seeds(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    plw("init", path, "--preset", "grid")
    search = load_spec(path).search
    assert search.space == {"loss.prompt_loss_weight": [0, 0.01, 0.1, 0.242, 1]}
    assert search.seeds == [0, 1, 2]


def test_the_bayesian_search_is_over_weight_and_learning_rate(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    plw("init", path, "--preset", "bayes")
    search = load_spec(path).search
    assert (search.method, search.points) == ("tpe", 24)
    assert list(search.space) == ["loss.prompt_loss_weight", "optimizer.learning_rate"]
    assert search.early_stopping.first_step == 50
    assert search.budget.hours == 24


def test_the_paper_s_weights_come_with_the_alpaca_recipe(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    content = written(path, "paper")
    alpaca = _plain(read_yaml(EXAMPLES / "alpaca.yaml"))
    same = ("optimizer", "schedule", "batch", "deepspeed", "checkpoint")
    assert {key: content[key] for key in same} == {key: alpaca[key] for key in same}
    spec = load_spec(path)
    assert spec.search.space == {
        "model.path": ["huggyllama/llama-7b", "meta-llama/Llama-2-7b-hf"],
        "data.path": ["tatsu-lab/alpaca", "yahma/alpaca-cleaned", "alpaca-short.jsonl"],
        "loss.prompt_loss_weight": PAPER,
    }
    assert len(list(grid_points(spec.search))) == 60
    assert [task.name for task in spec.evals.tasks] == ["multiple_choice", "short_generation"]
    assert spec.evals.alpaca_eval
    assert spec.evals.pandalm
    assert spec.evals.judge


def test_the_paper_s_other_regularisers_are_taken_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    plw("init", path, "--preset", "paper-regularisers")
    spec = load_spec(path)
    taken = [
        (point.pop("loss.prompt_loss_weight"), *(name for name, value in point.items() if value))
        for point in grid_points(spec.search)
    ]
    alone = ["optimizer.weight_decay", "optimizer.distance_penalty", "model.dropout",
             "loss.label_smoothing"]  # fmt: skip
    assert sorted(taken) == sorted(
        (weight, *names) for weight in (0, 1) for names in ((), *((name,) for name in alone))
    )
    assert spec.search.seeds == [0, 1, 2]


def test_the_grid_of_the_weighted_loss_has_35_pairs_and_the_paper_s_recipe(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    plw("init", path, "--preset", "wit")
    spec = load_spec(path)
    steps = [0, 0.2, 0.4, 0.6, 0.8, 1]
    pairs = [tuple(point.values()) for point in grid_points(spec.search)]
    # Section 4 of arXiv 2507.07817: 525 models of 15 combinations, 35 each.
    assert pairs == [(prompt, own) for prompt in steps for own in steps if prompt or own]
    assert len(pairs) == 35
    assert spec.search.seeds == [0, 1, 2]
    # Its section 3.2 and equation 2: the loss is divided by the count of tokens that count.
    assert (spec.loss.normalization, spec.optimizer.max_grad_norm) == ("nonzero", 0)
    assert (spec.optimizer.learning_rate, spec.optimizer.weight_decay) == (2e-5, 0.1)
    assert (spec.schedule.epochs, spec.schedule.warmup_ratio) == (2, 0.01)
    assert spec.batch.global_batch_size == 64


def test_specs_name_the_schema_that_lies_beside_them(tmp_path: Path) -> None:
    line = "# yaml-language-server: $schema=plw.schema.json"
    schema, spec = tmp_path / "plw.schema.json", tmp_path / "sweep.yaml"
    plw("init", spec)
    lines = spec.read_text().splitlines()
    assert lines[0] != line
    assert lines[-2:] == [
        "# For completion and checks in an editor: plw init --schema plw.schema.json, then begin "
        "this",
        "# file with: yaml-language-server: $schema=plw.schema.json",
    ]
    assert plw("init", "--schema", schema).output == (
        f"wrote {schema}\nnext: begin a spec with: {line}   (what plw init writes beside it does)\n"
    )
    assert json.loads(schema.read_text()) == json.loads(plw("init", "--schema").output)
    plw("init", spec, "--force")
    assert spec.read_text().splitlines()[0] == line
    assert load_spec(spec).name == "sweep"


@pytest.mark.parametrize("preset", PRESETS)
def test_the_schema_accepts_the_presets(tmp_path: Path, preset: str) -> None:
    schema = json.loads(plw("init", "--schema").output)
    jsonschema.validate(written(tmp_path / "sweep.yaml", preset), schema)


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("loss", {"prompt_loss_weight": 2}),
        ("schedule", {"kind": "cosin"}),
        ("batch", {"packed": True}),
        ("search", {}),
    ],
)
def test_the_schema_refuses_what_the_tool_refuses(
    tmp_path: Path, section: str, change: dict[str, Any]
) -> None:
    content = written(tmp_path / "sweep.yaml", "demo") | {section: change}
    schema = json.loads(plw("init", "--schema").output)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_two_lines_to_edit(tmp_path: Path, preset: str) -> None:
    path = tmp_path / "sweep.yaml"
    plw("init", path, "--preset", preset)
    edits = [
        line.split(":")[0].strip().split(".")[-1]
        for line in path.read_text().splitlines()
        if "edit:" in line
    ]
    assert edits == ["path", "path"]
