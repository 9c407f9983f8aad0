"""Malformed specs are rejected with all of their problems, each with rule, value and fix.

The cases are in malformed_specs.txt. A case has a title, the sections that replace those of a
valid spec (or the whole file, if the title ends so) and, after a line of dashes, all errors that
the command prints.
"""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from orchestrator.cli.main import main
from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import write_data

VALID = {
    "name": "name: bad\n",
    "model": "model: {path: model}\n",
    "data": "data: {path: data.jsonl, template: plain, heldout_examples: 8}\n",
    "schedule": "schedule: {steps: 2}\n",
    "deepspeed": "deepspeed: {precision: float32}\n",
    "search": "search: {space: {loss.prompt_loss_weight: [0, 0.1]}}\n",
}


class Case(NamedTuple):
    title: str
    spec: str
    problems: list[str]


def read_cases() -> list[Case]:
    """Return the cases of malformed_specs.txt."""
    cases = []
    for block in Path(__file__).with_name("malformed_specs.txt").read_text().split("====\n"):
        title, _, rest = block.partition("\n")
        change, _, problems = rest.partition("----\n")
        cases.append(
            Case(title.removeprefix("# "), with_changes(title, change), problems.splitlines())
        )
    return cases


def with_changes(title: str, change: str) -> str:
    """Return the valid spec with the top-level sections of `change` replaced or added."""
    if title.endswith("(whole file)"):
        return change
    sections = dict(VALID)
    key = ""
    for line in change.splitlines(keepends=True):
        if not line[0].isspace():
            key = line.partition(":")[0]
            sections[key] = ""
        sections[key] += line
    return "".join(sections.values())


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model and data, which rejected specs must not change."""
    folder = tmp_path_factory.mktemp("workspace")
    save_tiny_model(folder / "model")
    write_data(folder / "data.jsonl", 60)
    return folder


def errors_of(workspace: Path, spec: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the errors of `plw plan` for a spec; check that it writes no files."""
    monkeypatch.chdir(workspace)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = workspace / "sweep.yaml"
    path.write_text(spec)
    before = sorted(workspace.rglob("*"))
    result = CliRunner().invoke(main, ["plan", "sweep.yaml"])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert sorted(workspace.rglob("*")) == before
    lines = result.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    return [line.removeprefix("error: ") for line in lines]


@pytest.mark.parametrize("case", read_cases(), ids=lambda case: case.title)
def test_the_spec_is_rejected_with_its_problems(
    case: Case, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert errors_of(workspace, case.spec, monkeypatch) == case.problems


def test_titles_are_unique() -> None:
    titles = [case.title for case in read_cases()]
    assert len(set(titles)) == len(titles)


def test_deeply_nested_brackets_are_rejected(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert errors_of(workspace, "name: " + "[" * 3000, monkeypatch) == [
        "sweep.yaml: nested too deeply; close the brackets"
    ]


def test_an_integer_with_too_many_digits_is_rejected(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [problem] = errors_of(workspace, "name: bad\nseed: " + "1" * 5000, monkeypatch)
    assert problem.startswith("sweep.yaml:2: '111111")
    assert "... cannot be read as int: Exceeds the limit (4300 digits)" in problem
    assert len(problem) < 500


def test_a_template_instead_of_its_path_is_rejected(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "Q: {{ prompt }} A: " * 20
    data = f"data:\n  path: data.jsonl\n  template: '{template}'\n"
    [problem] = errors_of(workspace, with_changes("", data), monkeypatch)
    assert problem.startswith(
        "sweep.yaml:5: data.template: no part of a path may be longer than 255 bytes, got 'Q: {{"
    )
    assert problem.endswith("...; edit data.template")


def test_a_file_name_that_is_not_a_valid_sweep_name_is_rejected(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = with_changes("", "").removeprefix(VALID["name"])
    (tmp_path / "my sweep.yaml").write_text(spec)
    result = CliRunner().invoke(main, ["plan", "my sweep.yaml"])
    assert result.exit_code == 2
    assert result.stderr == (
        "error: my sweep.yaml: name must be 1 to 100 letters, digits, '.', '_' and '-', starting "
        "with a letter or digit, got 'my sweep'; edit name, or set it if it comes from the file "
        "name\n"
    )


@pytest.mark.parametrize("version", ["", "%YAML 1.1\n---\n"])
def test_the_valid_spec_is_accepted(
    version: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    spec = version + with_changes("", "optimizer: {learning_rate: 1e-4}\n")
    (workspace / "sweep.yaml").write_text(spec)
    result = CliRunner().invoke(main, ["plan", "sweep.yaml", "--json"])
    assert result.exit_code == 0, result.output
    trials = json.loads(result.stdout)["trials"]
    assert [trial["settings"]["optimizer"]["learning_rate"] for trial in trials] == [1e-4, 1e-4]
    assert "warn" not in result.stderr.lower()
