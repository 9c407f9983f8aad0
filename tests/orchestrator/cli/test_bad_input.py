"""Tests of bad input: a clear message, exit code 2, no traceback, no files written."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from orchestrator.cli.main import main
from orchestrator.record.folder import SweepFolder
from orchestrator.record.lock import sweep_lock
from tests.orchestrator.plw import refused
from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import write_data


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@dataclass
class SpecFolder:
    """A valid spec for tests to make invalid."""

    folder: Path
    spec: dict[str, object]

    @property
    def path(self) -> Path:
        return self.folder / "sweep.yaml"

    def run(self, *command: str) -> tuple[int, str]:
        """Return the exit code and output of `plw COMMAND sweep.yaml`."""
        with self.path.open("w") as file:
            YAML().dump(self.spec, file)
        result = CliRunner().invoke(main, [*(command or ("sweep",)), str(self.path)])
        return result.exit_code, result.output

    def line_of(self, text: str) -> int:
        lines = self.path.read_text().splitlines()
        return next(number for number, line in enumerate(lines, 1) if text in line)

    def files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}


@pytest.fixture
def spec_folder(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> SpecFolder:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write_data(tmp_path / "data.jsonl", 60)
    spec: dict[str, object] = {
        "name": "bad",
        "model": {"path": str(model)},
        "data": {"path": "data.jsonl", "template": "plain", "heldout_examples": 8},
        "schedule": {"steps": 2},
        "deepspeed": {"precision": "float32"},
        "search": {"space": {"loss.prompt_loss_weight": [0, 0.1]}},
    }
    return SpecFolder(tmp_path, spec)


def assert_rejected(spec_folder: SpecFolder, *expected: str, command: str = "sweep") -> None:
    """Assert exit code 2, each expected text in the message, and no new files."""
    before = spec_folder.files() | {"sweep.yaml"}
    code, output = spec_folder.run(*command.split())
    assert code == 2, output
    for text in expected:
        assert text in output
    assert "Traceback" not in output
    assert spec_folder.files() == before


def test_the_unchanged_spec_is_valid(spec_folder: SpecFolder) -> None:
    code, output = spec_folder.run("plan")
    assert code == 0, output
    assert "2 trials" in output


def test_plan_warns_of_truncated_data(spec_folder: SpecFolder) -> None:
    spec_folder.spec["data"] = {
        **{"path": "data.jsonl", "template": "plain", "heldout_examples": 8},
        "max_length": 8,
    }
    code, output = spec_folder.run("plan")
    assert code == 0
    assert (
        "\nwarning: 100% of the training examples (52 of 52) were truncated to 8 tokens ("
    ) in output
    assert "R_g and all findings describe the truncated data. Raise data.max_length" in output


@pytest.mark.parametrize(
    ("search", "is_too_small"),
    [
        ({"space": {"loss.prompt_loss_weight": [0, 0.1, 0.2, 0.5, 1]}}, True),
        ({"space": {"loss.prompt_loss_weight": [0, 0.1, 0.2, 0.3, 0.5, 1]}}, False),
        ({"space": {"loss.prompt_loss_weight": [0, 1]}, "seeds": [0]}, True),
        ({"space": {"loss.prompt_loss_weight": [0, 1]}, "seeds": [0, 1]}, False),
        ({"space": {"optimizer.learning_rate": [1e-5, 1e-4]}}, False),
    ],
)
def test_plan_warns_of_trials_that_do_not_show_their_noise(
    spec_folder: SpecFolder, search: dict[str, Any], is_too_small: bool
) -> None:
    spec_folder.spec["search"] = search
    code, output = spec_folder.run("plan")
    assert code == 0, output
    assert ("without repeats cannot show which weight is best" in output) is is_too_small


@pytest.mark.parametrize(
    ("points", "seeds", "warned"),
    [(7, [0], "7 points"), (7, [0, 1], "7 points"), (8, [0], ""), (5, [0], "5 points")],
)
def test_plan_warns_of_a_search_that_cannot_separate_weight_and_rate(
    spec_folder: SpecFolder, points: int, seeds: list[int], warned: str
) -> None:
    spec_folder.spec["search"] = {
        "method": "tpe",
        "points": points,
        "space": {
            "loss.prompt_loss_weight": {"low": 0, "high": 1},
            "optimizer.learning_rate": {"low": 1e-5, "high": 1e-3},
        },
        "seeds": seeds,
    }
    code, output = spec_folder.run("plan")
    assert code == 0, output
    text = " ".join(output.split())
    warning = "each with its own learning rate, cannot separate the effects of weight and rate"
    assert (f"warning: {warned}, {warning}; set search.points to 8 or more" in text) is bool(warned)
    assert "without repeats" not in text


def test_unknown_key_is_reported_with_line_and_nearest_key(spec_folder: SpecFolder) -> None:
    spec_folder.spec["optimiser"] = {"learning_rate": 1e-4}
    assert_rejected(spec_folder, "unknown key optimiser", "did you mean optimizer?")
    line = spec_folder.line_of("optimiser")
    assert f"sweep.yaml:{line}: " in spec_folder.run()[1]


def test_a_sweep_spec_in_place_of_a_training_config_is_named(spec_folder: SpecFolder) -> None:
    output = " ".join(spec_folder.run("train", "-o", "out")[1].split())
    assert output == (
        f"error: {spec_folder.path}:{spec_folder.line_of('search:')}: plw train needs the config "
        "of one training, but this is a sweep spec: it has search; run the sweep with plw sweep "
        f"{spec_folder.path}, then train with its best weight: plw train --best bad"
    )


def test_plw_above_one_is_reported_with_rule_value_and_line(spec_folder: SpecFolder) -> None:
    spec_folder.spec["search"] = {"space": {"loss.prompt_loss_weight": [0, 1.5]}}
    assert_rejected(
        spec_folder,
        "search.space.loss.prompt_loss_weight: input should be less than or equal to 1, got 1.5",
    )
    line = spec_folder.line_of("1.5")
    assert f"sweep.yaml:{line}: " in spec_folder.run()[1]


def test_all_problems_of_a_spec_are_reported_at_once(spec_folder: SpecFolder) -> None:
    spec_folder.spec["loss"] = {"prompt_loss_weight": -1}
    spec_folder.spec["batch"] = {"global_batch_size": 0, "micro_batchsize": 2}
    spec_folder.spec["search"] = {"space": {"loss.prompt_lossweight": [0]}}
    assert_rejected(
        spec_folder,
        "loss.prompt_loss_weight: input should be greater than or equal to 0, got -1",
        "batch.global_batch_size",
        "did you mean micro_batch_size?",
        "did you mean loss.prompt_loss_weight?",
    )


@pytest.mark.parametrize("space", [{"loss.prompt_loss_weight": []}, {}])
def test_empty_search_space(spec_folder: SpecFolder, space: dict[str, list[float]]) -> None:
    spec_folder.spec["search"] = {"space": space}
    place = ".loss.prompt_loss_weight" if space else ""
    got = ", got []" if space else ""
    assert_rejected(spec_folder, f"search.space{place}: needs at least 1 value{got}")


def test_missing_data_file(spec_folder: SpecFolder) -> None:
    spec_folder.spec["data"] = {"path": "nowhere.jsonl", "template": "plain"}
    assert_rejected(spec_folder, "nowhere.jsonl", "no such file")
    line = spec_folder.line_of("nowhere.jsonl")
    output = spec_folder.run("plan")[1]
    assert f"sweep.yaml:{line}: nowhere.jsonl: no such file in {spec_folder.folder};" in output


def test_missing_spec(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["sweep", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert "none.yaml: no such file" in result.output


def test_invalid_line_37_of_a_jsonl_file(spec_folder: SpecFolder) -> None:
    path = spec_folder.folder / "data.jsonl"
    lines = path.read_text().splitlines()
    lines[36] = lines[36][:-3]
    path.write_text("\n".join(lines) + "\n")
    assert_rejected(spec_folder, "data.jsonl:37: ")


def test_empty_completion(spec_folder: SpecFolder) -> None:
    path = spec_folder.folder / "data.jsonl"
    lines = path.read_text().splitlines()
    lines[4] = json.dumps({"instruction": "Say nothing.", "input": "", "output": ""})
    path.write_text("\n".join(lines) + "\n")
    assert_rejected(spec_folder, "data.jsonl:5: ", "output")


def remove_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def truncate_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("break_model", "expected"),
    [
        (truncate_weights, ("or incomplete (Error while deserializing header: ", "copy the files")),
        (remove_tokenizer, ("the model folder has no tokenizer", "save")),
        (remove_weights, ("the model folder has no safetensors weights", "save")),
    ],
)
def test_incomplete_model_folder(
    spec_folder: SpecFolder,
    model: Path,
    break_model: Callable[[Path], None],
    expected: tuple[str, str],
) -> None:
    copy = spec_folder.folder / "model"
    shutil.copytree(model, copy)
    break_model(copy)
    spec_folder.spec["model"] = {"path": str(copy)}
    assert_rejected(spec_folder, *expected)


def test_missing_model(spec_folder: SpecFolder) -> None:
    spec_folder.spec["model"] = {"path": "./no-such-model"}
    assert_rejected(spec_folder, "model.path is not a folder: ./no-such-model")
    assert f"sweep.yaml:{spec_folder.line_of('./no-such-model')}: " in spec_folder.run("plan")[1]


def test_more_workers_than_the_machine_has(spec_folder: SpecFolder) -> None:
    spec_folder.spec["resources"] = {"workers_per_trial": 1000}
    cores = os.cpu_count()
    assert_rejected(spec_folder, "a trial needs 1000 CPU cores", f"this machine has {cores}")


def test_unreachable_mlflow(spec_folder: SpecFolder) -> None:
    spec_folder.spec["tracking"] = {"uri": "http://127.0.0.1:9"}
    assert_rejected(spec_folder, "http://127.0.0.1:9")


def test_chat_template_with_a_tokenizer_that_has_none(spec_folder: SpecFolder, model: Path) -> None:
    copy = spec_folder.folder / "model"
    shutil.copytree(model, copy)
    (copy / "chat_template.jinja").unlink()
    spec_folder.spec["model"] = {"path": str(copy)}
    spec_folder.spec["data"] = {"path": "data.jsonl", "heldout_examples": 8}
    assert_rejected(spec_folder, "the tokenizer has no chat template", "alpaca or plain")


def test_too_few_examples_for_the_heldout_part(spec_folder: SpecFolder) -> None:
    spec_folder.spec["data"] = {"path": "data.jsonl", "template": "plain"}
    assert_rejected(spec_folder, "data.heldout_examples")


def test_epochs_and_steps_together(spec_folder: SpecFolder) -> None:
    spec_folder.spec["schedule"] = {"steps": 2, "epochs": 1}
    assert_rejected(spec_folder, "set exactly one of schedule.epochs and schedule.steps")


def test_heldout_examples_cannot_be_searched(spec_folder: SpecFolder) -> None:
    spec_folder.spec["search"] = {"space": {"data.heldout_examples": [8, 9]}}
    assert_rejected(spec_folder, "data.heldout_examples cannot be searched")


def test_every_missing_searched_model_is_reported(spec_folder: SpecFolder) -> None:
    spec_folder.spec["search"] = {"space": {"model.path": ["./a", "./b"]}}
    assert_rejected(spec_folder, "model.path is not a folder: ./a", "is not a folder: ./b")
    # The line is that of the searched values, even if the spec also sets a single value.
    spec_folder.spec["model"] = {"path": "./a"}
    assert f"sweep.yaml:{spec_folder.line_of('model.path:')}: " in spec_folder.run("plan")[1]


def test_an_output_dir_that_is_a_file(spec_folder: SpecFolder) -> None:
    spec_folder.spec["output_dir"] = "data.jsonl"
    assert_rejected(
        spec_folder, "output_dir: must be a folder", "data.jsonl is a file", "use another folder"
    )


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere", "127.0.0.1:notaport"])
def test_unreachable_cluster(spec_folder: SpecFolder, address: str) -> None:
    assert_rejected(
        spec_folder,
        f"no Ray cluster can be used at {address}",
        command=f"sweep --address {address}",
    )


def test_second_sweep_in_the_same_folder(spec_folder: SpecFolder) -> None:
    folder = SweepFolder(spec_folder.folder / "taken")
    spec_folder.spec["output_dir"] = "taken"
    with sweep_lock(folder):
        code, output = spec_folder.run("sweep")
    assert code == 2
    assert (
        "another sweep is running in this folder; watch it with plw status taken, stop it with "
        "plw stop taken, or use another --output-dir" in output
    )


@pytest.mark.parametrize("command", ["status", "report", "ui"])
def test_folder_without_a_sweep(command: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [command, str(tmp_path)])
    assert result.exit_code == 2
    assert "no sweep in this folder" in result.output


@pytest.mark.slow
def test_unknown_lm_eval_tasks_are_rejected_before_the_start(
    spec_folder: SpecFolder,
) -> None:
    spec_folder.spec["evals"] = {"tasks": ["piqa", "helaswag", "arc_chalenge"]}
    for command in ("plan", "sweep"):
        assert_rejected(
            spec_folder,
            "evals.tasks: unknown task 'helaswag'; did you mean hellaswag",
            "evals.tasks: unknown task 'arc_chalenge'; did you mean arc_challenge",
            command=command,
        )
    out = spec_folder.folder / "out"
    output = refused("eval", "no/such-model", "--tasks", "helaswag", "-o", out)
    assert "unknown task 'helaswag'; did you mean hellaswag" in output
    assert not out.exists()
