"""`plw init`: preset specs and the JSON Schema for editors."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from orchestrator.spec.init import PRESETS
from orchestrator.spec.search_points import grid_points
from orchestrator.spec.sweep_spec import load_spec
from tests.orchestrator.plw import plw, plw_json, refused
from trainers.foundation.settings_file import read_yaml, to_builtin

EXAMPLES = Path(__file__).parents[3] / "examples"
PAPER_WEIGHTS = [0, 5e-4, 2.236e-3, 1e-2, 2.463e-2, 5e-2, 1e-1, 2.463e-1, 5e-1, 1]


def init_preset(path: Path, preset: str) -> dict[str, Any]:
    """Run `plw init` and return the content of the file."""
    plw("init", path, "--preset", preset)
    content: dict[str, Any] = to_builtin(read_yaml(path))
    return content


def test_the_default_preset_is_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert plw("init").output == "wrote sweep.yaml\nnext: plw plan sweep.yaml\n"
    text = Path("sweep.yaml").read_text()
    assert text.startswith((EXAMPLES / "demo.yaml").read_text())
    assert load_spec(Path("sweep.yaml")).name == "sweep"


def test_a_preset_for_other_data_must_be_edited_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert plw("init", "my.yaml", "--preset", "bayes").output == (
        "wrote my.yaml\nnext: edit the lines marked edit, then: plw plan my.yaml\n"
    )
    Path("train.jsonl").touch()
    output = plw("init", "my.yaml", "--preset", "bayes", "--force").output
    assert output == "wrote my.yaml\nnext: plw plan my.yaml\n"


def test_an_existing_file_is_overwritten_only_with_force(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("existing\n")
    assert refused("init", path) == f"error: {path}: file exists; use --force to overwrite"
    assert path.read_text() == "existing\n"
    assert plw_json("init", path, "--force") == {"path": str(path), "next": f"plw plan {path}"}
    assert load_spec(path).name == "sweep"


def test_a_path_that_cannot_be_written_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert (
        refused("init", tmp_path)
        == f"error: {tmp_path}: is a folder; give the name of a file in it"
    )
    assert refused("init", ".") == "error: .: is a folder; give the name of a file in it"
    below = tmp_path / "file" / "sweep.yaml"
    assert f"error: {below}: cannot be written: " in refused("init", below)


def test_the_grid_preset_has_five_weights_and_three_seeds(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    plw("init", path, "--preset", "grid")
    search = load_spec(path).search
    assert search.space == {"loss.prompt_loss_weight": [0, 0.01, 0.1, 0.242, 1]}
    assert search.seeds == [0, 1, 2]


def test_the_bayesian_preset_searches_weight_and_learning_rate(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    plw("init", path, "--preset", "bayes")
    search = load_spec(path).search
    assert (search.method, search.points) == ("tpe", 24)
    assert list(search.space) == ["loss.prompt_loss_weight", "optimizer.learning_rate"]
    assert search.early_stopping.first_step == 50
    assert search.budget.hours == 24


def test_the_paper_preset_has_the_paper_s_weights_and_the_alpaca_recipe(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    content = init_preset(path, "paper")
    alpaca = to_builtin(read_yaml(EXAMPLES / "alpaca.yaml"))
    same = ("optimizer", "schedule", "batch", "deepspeed", "checkpoint")
    assert {key: content[key] for key in same} == {key: alpaca[key] for key in same}
    spec = load_spec(path)
    assert spec.search.space == {
        "model.path": ["huggyllama/llama-7b", "meta-llama/Llama-2-7b-hf"],
        "data.path": ["tatsu-lab/alpaca", "yahma/alpaca-cleaned", "alpaca-short.jsonl"],
        "loss.prompt_loss_weight": PAPER_WEIGHTS,
    }
    assert len(list(grid_points(spec.search))) == 60
    assert [task.name for task in spec.evals.tasks] == ["multiple_choice", "short_generation"]
    assert spec.evals.alpaca_eval
    assert spec.evals.pandalm_prompts
    assert spec.evals.judge


def test_the_regularisers_preset_has_one_regulariser_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    plw("init", path, "--preset", "paper-regularisers")
    spec = load_spec(path)
    combinations = [
        (point.pop("loss.prompt_loss_weight"), *(name for name, value in point.items() if value))
        for point in grid_points(spec.search)
    ]
    regularisers = ["optimizer.weight_decay", "optimizer.l2_sp", "model.dropout",
             "loss.label_smoothing"]  # fmt: skip
    assert sorted(combinations) == sorted(
        (weight, *names) for weight in (0, 1) for names in ((), *((name,) for name in regularisers))
    )
    assert spec.search.seeds == [0, 1, 2]


def test_the_wit_preset_has_35_pairs_and_the_paper_s_recipe(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    plw("init", path, "--preset", "wit")
    spec = load_spec(path)
    steps = [0, 0.2, 0.4, 0.6, 0.8, 1]
    pairs = [tuple(point.values()) for point in grid_points(spec.search)]
    # Section 4 of arXiv 2507.07817: 525 models of 15 combinations, 35 each.
    assert pairs == [(prompt, other) for prompt in steps for other in steps if prompt or other]
    assert len(pairs) == 35
    assert spec.search.seeds == [0, 1, 2]
    # Section 3.2 and equation 2: the loss is divided by the number of tokens of weight above 0.
    assert (spec.loss.normalization, spec.optimizer.max_grad_norm) == ("nonzero", 0)
    assert (spec.optimizer.learning_rate, spec.optimizer.weight_decay) == (2e-5, 0.1)
    assert (spec.schedule.epochs, spec.schedule.warmup_ratio) == (2, 0.01)
    assert spec.batch.global_batch_size == 64


def test_specs_refer_to_a_schema_in_the_same_folder(tmp_path: Path) -> None:
    line = "# yaml-language-server: $schema=plw.schema.json"
    schema, spec = tmp_path / "plw.schema.json", tmp_path / "sweep.yaml"
    plw("init", spec)
    lines = spec.read_text().splitlines()
    assert lines[0] != line
    assert lines[-2:] == [
        "# Completion and checks in an editor: run plw init --schema plw.schema.json, and add the",
        "# first line: yaml-language-server: $schema=plw.schema.json",
    ]
    assert plw("init", "--schema", schema).output == (
        f"wrote {schema}\nnext: begin a spec with: {line}   "
        "(plw init writes this line if the schema is in the same folder)\n"
    )
    assert json.loads(schema.read_text()) == json.loads(plw("init", "--schema").output)
    plw("init", spec, "--force")
    assert spec.read_text().splitlines()[0] == line
    assert load_spec(spec).name == "sweep"


@pytest.mark.parametrize("preset", PRESETS)
def test_the_schema_accepts_the_presets(tmp_path: Path, preset: str) -> None:
    schema = json.loads(plw("init", "--schema").output)
    jsonschema.validate(init_preset(tmp_path / "sweep.yaml", preset), schema)


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("loss", {"prompt_loss_weight": 2}),
        ("schedule", {"kind": "cosin"}),
        ("batch", {"packed": True}),
        ("search", {}),
    ],
)
def test_the_schema_rejects_invalid_sections(
    tmp_path: Path, section: str, change: dict[str, Any]
) -> None:
    content = init_preset(tmp_path / "sweep.yaml", "demo") | {section: change}
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
