"""Tests of `plw eval`: options, templates and messages."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli.main import main
from tests.evals.benchmark_files import write_data_root, write_lines
from tests.orchestrator.plw import refused
from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import write_data
from trainers.data_config import DataConfig
from trainers.models.prompt_format import write_prompt_format


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data_root(tmp_path_factory.mktemp("data"), num_items=3)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny_model(tmp_path / "model")


def _eval(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["eval", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch-size", "0"), "must be auto or a positive whole number, got 0"),
        (("--limit", "0"), "0 is not in the range x>=1"),
    ],
)
def test_an_option_out_of_range_is_rejected(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(main, ["eval", "m", "--tasks", "piqa", "-o", "out", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr


def test_eval_without_tasks_or_data_is_rejected_with_advice(tmp_path: Path) -> None:
    output = refused("eval", str(tmp_path), "-o", str(tmp_path / "out"))
    assert "nothing to score on; give --tasks or --data, or a sweep spec as --config" in output


def test_custom_benchmarks_need_no_sweep_spec(model: Path, tmp_path: Path) -> None:
    write_lines(tmp_path / "capitals.jsonl", [{"prompt": "Capital of Italy?", "target": "Rome"}])
    custom = {"name": "capitals", "path": str(tmp_path / "capitals.jsonl"), "kind": "exact_match"}
    config = tmp_path / "evals.yaml"
    config.write_text(json.dumps({"evals": {"benchmarks": [custom]}}))
    result = _eval(model, "--config", config, "-o", tmp_path / "out", "--json")
    assert [s["name"] for s in json.loads(result.stdout)["scores"]] == ["capitals.exact_match"]


def test_opponent_keeps_the_other_pandalm_settings(model: Path, tmp_path: Path) -> None:
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"instruction": "Sing."}])
    pandalm = {"prompts": str(prompts), "max_new_tokens": 3}
    judge = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "api_key_env": None}
    content = {"evals": {"pandalm_prompts": pandalm, "judge": judge}}
    (tmp_path / "evals.yaml").write_text(json.dumps(content))
    # Identical outputs need no requests.
    arguments = ("--config", tmp_path / "evals.yaml", "--opponent", model, "-o", tmp_path / "out")
    result = _eval(model, *arguments, "--json")
    measures = json.loads(result.stdout)["signature"]["measures"]
    assert measures["pandalm_prompts"]["max_new_tokens"] == 3


@pytest.mark.parametrize(
    ("evals", "message"),
    [
        ("{limt: 4}", "evals.yaml:1: unknown key evals.limt; did you mean limit?"),
        (
            "{heldout: {examples: 4}}",
            "there are no examples for the measures on held-out examples; give",
        ),
    ],
)
def test_a_file_with_only_evals_is_validated_like_a_spec(
    model: Path, tmp_path: Path, evals: str, message: str
) -> None:
    (tmp_path / "evals.yaml").write_text(f"evals: {evals}\n")
    arguments = ("--config", str(tmp_path / "evals.yaml"), "-o", str(tmp_path / "out"))
    assert message in refused("eval", str(model), *arguments)


def test_missing_files_are_reported(model: Path, tmp_path: Path) -> None:
    output = refused(
        *("eval", str(model), "--tasks", "piqa", "--data-root", str(tmp_path)),
        *("-o", str(tmp_path / "out")),
    )
    assert (
        f"piqa needs piqa/validation.jsonl below evals.data_root, but it is not in {tmp_path}"
        in output
    )


def test_an_unknown_checkpoint_template_is_rejected(
    model: Path, data_root: Path, tmp_path: Path
) -> None:
    output = refused(
        *("eval", str(model), "--tasks", "piqa", "--data-root", str(data_root)),
        *("--task-template", "checkpoint", "-o", str(tmp_path / "out")),
    )
    assert "has no record of the template it was trained with" in output


def test_the_default_template_is_that_of_the_training(model: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "d.jsonl")
    write_prompt_format(model, DataConfig(path="d.jsonl", template="alpaca", max_length=400))
    result = _eval(model, "--data", data, "-o", tmp_path / "out", "--json")
    signature = json.loads(result.stdout)["signature"]
    assert (signature["template"], signature["max_length"]) == ("alpaca", 400)
    assert result.stderr == ""
    other = _eval(model, "--data", data, "--template", "plain", "-o", tmp_path / "o", "--json")
    assert json.loads(other.stdout)["signature"]["template"] == "plain"
    assert other.stderr == ("note: the model was trained with template alpaca; scored with plain\n")


def test_the_output_folder_of_plw_train_is_scored_by_its_model(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "trained" / "model")
    (tmp_path / "trained" / "train.json").write_text("{}")
    write_prompt_format(model, DataConfig(path="d.jsonl", template="plain"))
    data = write_data(tmp_path / "d.jsonl")
    out = tmp_path / "out"
    result = _eval(tmp_path / "trained", "--data", data, "-o", out)
    assert result.exit_code == 0, result.output
    assert json.loads((out / "scores.json").read_text())["model_path"] == str(model)


def test_a_training_config_in_place_of_a_sweep_spec_is_named(tmp_path: Path) -> None:
    config = tmp_path / "train.yaml"
    config.write_text("model: {path: m}\ndata: {path: d.jsonl}\n")
    output = refused("eval", "m", "--config", str(config), "-o", str(tmp_path / "out"))
    assert output == (
        f"error: {config}: --config must be a sweep spec or a file with only evals; this is a "
        "training config, not a sweep spec, because it has no search; give the sweep spec, or omit "
        "--config and give --data or --tasks"
    )


def test_a_template_file_changed_since_training_is_rejected(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompt.jinja"
    file.write_text("Q: {{ prompt }}\nA:")
    write_prompt_format(model, DataConfig(path="d.jsonl", template=str(file)))
    file.write_text("Question: {{ prompt }}\nA:")
    data = write_data(tmp_path / "d.jsonl")
    output = refused("eval", str(model), "--data", str(data), "-o", str(tmp_path / "out"))
    assert f"the template {file} that {model} was trained with has changed" in output


@pytest.mark.slow
def test_tasks_are_scored_reused_and_rescored(model: Path, data_root: Path, tmp_path: Path) -> None:
    arguments = (
        *(model, "--tasks", "piqa,wmt14-en-fr", "--data-root", data_root, "--limit", 2),
        *("--batch-size", "auto", "--seed", 7, "-o", tmp_path / "out"),
    )
    first = _eval(*arguments)
    assert first.exit_code == 0
    assert "piqa.acc_norm" in first.stdout
    assert "further: piqa.acc 0." in first.stdout
    assert f"wrote {tmp_path / 'out' / 'scores.json'}" in first.stdout
    again = _eval(*arguments, "--json")
    assert again.stderr == "reused from an earlier run: piqa, wmt14-en-fr\n"
    card = json.loads(again.stdout)
    assert [score["num_items"] for score in card["scores"]] == [2, 2]
    assert card["signature"]["seed"] == 7
    rescored = _eval(tmp_path / "out", "--rescore", "--json")
    assert json.loads(rescored.stdout)["scores"] == card["scores"]
