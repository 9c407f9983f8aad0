"""Bad input: one clear message each, exit code 2, no traceback, nothing written."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from orchestrator.cli.main import main
from orchestrator.record.folder import SweepFolder
from orchestrator.record.lock import only_sweep_in
from tests.orchestrator.plw import refused
from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import write_data


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@dataclass
class Workplace:
    """A spec that is right, to be spoilt by a test."""

    folder: Path
    spec: dict[str, object]

    @property
    def path(self) -> Path:
        return self.folder / "sweep.yaml"

    def run(self, *command: str) -> tuple[int, str]:
        """Exit code and all output of `plw COMMAND sweep.yaml`."""
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
def workplace(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
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
    return Workplace(tmp_path, spec)


def assert_refused(workplace: Workplace, *expected: str, command: str = "sweep") -> None:
    """Exit code 2, each expected text in the message, and no file that was not there before."""
    before = workplace.files() | {"sweep.yaml"}
    code, output = workplace.run(*command.split())
    assert code == 2, output
    for text in expected:
        assert text in output
    assert "Traceback" not in output
    assert workplace.files() == before


def test_the_spec_is_right_before_it_is_spoilt(workplace: Workplace) -> None:
    code, output = workplace.run("plan")
    assert code == 0, output
    assert "2 trials" in output


def test_plan_warns_of_data_that_is_cut(workplace: Workplace) -> None:
    workplace.spec["data"] = {
        **{"path": "data.jsonl", "template": "plain", "heldout_examples": 8},
        "max_length": 8,
    }
    code, output = workplace.run("plan")
    assert code == 0
    assert (
        "\nwarning: 100% of the training examples (52 of 52) were cut to 8 tokens, which lost "
    ) in output
    assert "R_g and all findings are those of the cut data. Raise data.max_length" in output


def test_unknown_key_names_line_and_nearest_key(workplace: Workplace) -> None:
    workplace.spec["optimiser"] = {"learning_rate": 1e-4}
    assert_refused(workplace, "unknown key optimiser", "did you mean optimizer?")
    line = workplace.line_of("optimiser")
    assert f"sweep.yaml:{line}: " in workplace.run()[1]


def test_plw_above_one_names_rule_value_and_line(workplace: Workplace) -> None:
    workplace.spec["search"] = {"space": {"loss.prompt_loss_weight": [0, 1.5]}}
    assert_refused(
        workplace,
        "search.space.loss.prompt_loss_weight: input should be less than or equal to 1, got 1.5",
    )
    line = workplace.line_of("1.5")
    assert f"sweep.yaml:{line}: " in workplace.run()[1]


def test_all_problems_of_a_spec_come_at_once(workplace: Workplace) -> None:
    workplace.spec["loss"] = {"prompt_loss_weight": -1}
    workplace.spec["batch"] = {"global_batch_size": 0, "micro_batchsize": 2}
    workplace.spec["search"] = {"space": {"loss.prompt_lossweight": [0]}}
    assert_refused(
        workplace,
        "loss.prompt_loss_weight: input should be greater than or equal to 0, got -1",
        "batch.global_batch_size",
        "did you mean micro_batch_size?",
        "did you mean loss.prompt_loss_weight?",
    )


@pytest.mark.parametrize("space", [{"loss.prompt_loss_weight": []}, {}])
def test_a_search_over_nothing(workplace: Workplace, space: dict[str, list[float]]) -> None:
    workplace.spec["search"] = {"space": space}
    place = ".loss.prompt_loss_weight" if space else ""
    got = ", got []" if space else ""
    assert_refused(workplace, f"search.space{place}: needs at least 1 value{got}")


def test_missing_data_file(workplace: Workplace) -> None:
    workplace.spec["data"] = {"path": "nowhere.jsonl", "template": "plain"}
    assert_refused(workplace, "nowhere.jsonl", "no such file")
    line = workplace.line_of("nowhere.jsonl")
    assert f"sweep.yaml:{line}: nowhere.jsonl: no such file" in workplace.run("plan")[1]


def test_missing_spec(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["sweep", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert "none.yaml: no such file" in result.output


def test_broken_line_37_of_a_jsonl(workplace: Workplace) -> None:
    path = workplace.folder / "data.jsonl"
    lines = path.read_text().splitlines()
    lines[36] = lines[36][:-3]
    path.write_text("\n".join(lines) + "\n")
    assert_refused(workplace, "data.jsonl:37: ")


def test_empty_completion(workplace: Workplace) -> None:
    path = workplace.folder / "data.jsonl"
    lines = path.read_text().splitlines()
    lines[4] = json.dumps({"instruction": "Say nothing.", "input": "", "output": ""})
    path.write_text("\n".join(lines) + "\n")
    assert_refused(workplace, "data.jsonl:5: ", "output")


def without_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def with_half_its_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (with_half_its_weights, "model.safetensors: the weights cannot be read: "),
        (without_tokenizer, "the model folder has no tokenizer"),
        (without_weights, "the model folder has no safetensors weights"),
    ],
)
def test_incomplete_model_folder(
    workplace: Workplace, model: Path, spoil: Callable[[Path], None], expected: str
) -> None:
    copy = workplace.folder / "model"
    shutil.copytree(model, copy)
    spoil(copy)
    workplace.spec["model"] = {"path": str(copy)}
    assert_refused(workplace, expected, "save")


def test_model_that_is_nowhere(workplace: Workplace) -> None:
    workplace.spec["model"] = {"path": "./no-such-model"}
    assert_refused(workplace, "model.path is not a folder: ./no-such-model")
    assert f"sweep.yaml:{workplace.line_of('./no-such-model')}: " in workplace.run("plan")[1]


def test_more_workers_than_the_machine_has(workplace: Workplace) -> None:
    workplace.spec["resources"] = {"workers_per_trial": 1000}
    cores = os.cpu_count()
    assert_refused(workplace, "a trial needs 1000 CPU cores", f"this machine has {cores}")


def test_mlflow_uri_that_does_not_answer(workplace: Workplace) -> None:
    workplace.spec["tracking"] = {"uri": "http://127.0.0.1:9"}
    assert_refused(workplace, "http://127.0.0.1:9")


def test_chat_template_where_the_tokenizer_has_none(workplace: Workplace, model: Path) -> None:
    copy = workplace.folder / "model"
    shutil.copytree(model, copy)
    (copy / "chat_template.jinja").unlink()
    workplace.spec["model"] = {"path": str(copy)}
    workplace.spec["data"] = {"path": "data.jsonl", "heldout_examples": 8}
    assert_refused(workplace, "the tokenizer has no chat template", "alpaca or plain")


def test_too_few_examples_for_the_heldout_part(workplace: Workplace) -> None:
    workplace.spec["data"] = {"path": "data.jsonl", "template": "plain"}
    assert_refused(workplace, "data.heldout_examples")


def test_epochs_beside_steps(workplace: Workplace) -> None:
    workplace.spec["schedule"] = {"steps": 2, "epochs": 1}
    assert_refused(workplace, "give exactly one of schedule.epochs and schedule.steps")


def test_the_held_out_part_cannot_be_searched(workplace: Workplace) -> None:
    workplace.spec["search"] = {"space": {"data.heldout_examples": [8, 9]}}
    assert_refused(workplace, "data.heldout_examples cannot be searched")


def test_every_searched_model_that_is_not_there_is_named(workplace: Workplace) -> None:
    workplace.spec["search"] = {"space": {"model.path": ["./a", "./b"]}}
    assert_refused(workplace, "model.path is not a folder: ./a", "is not a folder: ./b")
    # The line is that of the values, also where the spec sets one beside them.
    workplace.spec["model"] = {"path": "./a"}
    assert f"sweep.yaml:{workplace.line_of('model.path:')}: " in workplace.run("plan")[1]


def test_an_output_dir_that_is_a_file(workplace: Workplace) -> None:
    workplace.spec["output_dir"] = "data.jsonl"
    assert_refused(
        workplace, "output_dir: must be a folder", "data.jsonl is a file", "give another folder"
    )


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere", "127.0.0.1:notaport"])
def test_a_cluster_that_does_not_answer(workplace: Workplace, address: str) -> None:
    assert_refused(
        workplace, f"no Ray cluster can be used at {address}", command=f"sweep --address {address}"
    )


def test_a_second_sweep_in_the_same_folder(workplace: Workplace) -> None:
    folder = SweepFolder(workplace.folder / "taken")
    workplace.spec["output_dir"] = "taken"
    with only_sweep_in(folder):
        code, output = workplace.run("sweep")
    assert code == 2
    assert "another sweep is running in this folder" in output


@pytest.mark.parametrize("command", ["status", "report", "ui"])
def test_a_folder_without_a_sweep(command: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [command, str(tmp_path)])
    assert result.exit_code == 2
    assert "no sweep here" in result.output


@pytest.mark.slow
def test_a_task_that_lm_eval_has_not_is_refused_before_anything_starts(
    workplace: Workplace,
) -> None:
    workplace.spec["evals"] = {"tasks": ["piqa", "helaswag", "arc_chalenge"]}
    for command in ("plan", "sweep"):
        assert_refused(
            workplace,
            "evals.tasks: there is no task 'helaswag'; did you mean hellaswag",
            "evals.tasks: there is no task 'arc_chalenge'; did you mean arc_challenge",
            command=command,
        )
    out = workplace.folder / "out"
    output = refused("eval", "no/such-model", "--tasks", "helaswag", "-o", out)
    assert "there is no task 'helaswag'; did you mean hellaswag" in output
    assert not out.exists()
