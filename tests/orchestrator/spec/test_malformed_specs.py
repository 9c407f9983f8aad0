"""Malformed specs: each is refused with all of its problems, every one with rule, value and fix.

The table is malformed_specs.txt. A case there is a title, what is put into a good spec (the whole
file where its title says so) and, after a line of dashes, the whole of what the command says.
"""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from orchestrator.cli.main import main
from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import write_data

GOOD = {
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
    """The cases of the table."""
    cases = []
    for block in Path(__file__).with_name("malformed_specs.txt").read_text().split("====\n"):
        title, _, rest = block.partition("\n")
        change, _, problems = rest.partition("----\n")
        cases.append(Case(title.removeprefix("# "), spoilt(title, change), problems.splitlines()))
    return cases


def spoilt(title: str, change: str) -> str:
    """A good spec in which top-level keys are replaced by those of `change`, or added to it."""
    if title.endswith("(whole file)"):
        return change
    sections = dict(GOOD)
    key = ""
    for line in change.splitlines(keepends=True):
        if not line[0].isspace():
            key = line.partition(":")[0]
            sections[key] = ""
        sections[key] += line
    return "".join(sections.values())


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and data, which refused specs leave as it is."""
    folder = tmp_path_factory.mktemp("workplace")
    save_tiny_model(folder / "model")
    write_data(folder / "data.jsonl", 60)
    return folder


def refusal(workplace: Path, spec: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `plw plan` says of a spec, which it must refuse and leave nothing behind."""
    monkeypatch.chdir(workplace)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = workplace / "sweep.yaml"
    path.write_text(spec)
    before = sorted(workplace.rglob("*"))
    result = CliRunner().invoke(main, ["plan", "sweep.yaml"])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert sorted(workplace.rglob("*")) == before
    lines = result.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    return [line.removeprefix("error: ") for line in lines]


@pytest.mark.parametrize("case", read_cases(), ids=lambda case: case.title)
def test_it_is_refused(case: Case, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(workplace, case.spec, monkeypatch) == case.problems


def test_the_table_has_no_title_twice() -> None:
    titles = [case.title for case in read_cases()]
    assert len(set(titles)) == len(titles)


def test_brackets_nested_too_deeply(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(workplace, "name: " + "[" * 3000, monkeypatch) == [
        "sweep.yaml: nested too deeply; close the brackets"
    ]


def test_a_number_of_too_many_digits(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [problem] = refusal(workplace, "name: bad\nseed: " + "1" * 5000, monkeypatch)
    assert problem.startswith("sweep.yaml:2: '111111")
    assert "... cannot be read as int: Exceeds the limit (4300 digits)" in problem
    assert len(problem) < 500


def test_a_template_in_place_of_its_path(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "Q: {{ prompt }} A: " * 20
    data = f"data:\n  path: data.jsonl\n  template: '{template}'\n"
    [problem] = refusal(workplace, spoilt("", data), monkeypatch)
    assert problem.startswith(
        "sweep.yaml:5: data.template: no part of a path may be longer than 255 bytes, got 'Q: {{"
    )
    assert problem.endswith("...; edit data.template")


def test_a_file_name_that_names_no_sweep(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = spoilt("", "").removeprefix(GOOD["name"])
    (tmp_path / "my sweep.yaml").write_text(spec)
    result = CliRunner().invoke(main, ["plan", "my sweep.yaml"])
    assert result.exit_code == 2
    assert result.stderr == (
        "error: my sweep.yaml: name must be 1 to 100 letters, digits, '.', '_' and '-', the first "
        "a letter or digit, got 'my sweep'; edit name, or add one: without it, that of the file "
        "is taken\n"
    )


@pytest.mark.parametrize("version", ["", "%YAML 1.1\n---\n"])
def test_the_good_spec_is_good(
    version: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    spec = version + spoilt("", "optimizer: {learning_rate: 1e-4}\n")
    (workplace / "sweep.yaml").write_text(spec)
    result = CliRunner().invoke(main, ["plan", "sweep.yaml", "--json"])
    assert result.exit_code == 0, result.output
    trials = json.loads(result.stdout)["trials"]
    assert [trial["settings"]["optimizer"]["learning_rate"] for trial in trials] == [1e-4, 1e-4]
    assert "warn" not in result.stderr.lower()
