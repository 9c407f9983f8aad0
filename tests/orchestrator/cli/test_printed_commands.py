"""Printed commands work when pasted into a shell, whatever the folder's name."""

import html
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from orchestrator.cli.sweep_output import print_outcome
from orchestrator.monitoring.command_hints import CLUSTER_OPTIONS_VARIABLE
from orchestrator.record.folder import SweepFolder
from orchestrator.record.lock import sweep_lock
from tests.orchestrator.plw import plw
from tests.orchestrator.sweeps import card, outcome_of, trial, write_sweep

NAMES = ["my runs", "what? 50%20 #x", "-runs", "it's", "$HOME;`id`"]


def arguments_in_a_shell(command: str) -> list[str]:
    """Return the arguments that a shell passes to the first word of `command`."""
    script = f"plw() {{ printf '%s\\n' \"$@\"; }}; {command}"
    return subprocess.check_output(["sh", "-c", script], text=True).splitlines()


@pytest.fixture(params=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the relative path of a finished sweep."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(CLUSTER_OPTIONS_VARIABLE, raising=False)
    root = tmp_path / request.param / "mini"
    scores = {"heldout_completion_loss": (1.0, None, None)}
    trials = [trial(plw) for plw in (0.0, 0.1)]
    write_sweep(root, trials, {one.id: card(scores) for one in trials})
    sweep = SweepFolder(root)
    record = sweep.read_sweep()
    relative = f"{request.param}/mini"
    changed = {"spec_path": f"{relative}.yaml", "spec": {**record.spec, "output_dir": relative}}
    sweep.write_sweep(record.model_copy(update=changed))
    return relative


def test_commands_after_a_sweep(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_outcome(outcome_of(SweepFolder(Path(folder).absolute())))
    commands = re.findall(r"^  (plw .*?)  ", capsys.readouterr().out, re.MULTILINE)
    shown = f"./{folder}" if folder.startswith("-") else folder
    assert [arguments_in_a_shell(command) for command in commands] == [
        ["report", shown],
        ["status", shown],
        ["ui", shown],
        ["sweep", f"{shown}.yaml", "-o", shown, "--set", "search.seeds=[0, 1, 2]"],
    ]
    for command in commands[:2]:
        assert plw(*shlex.split(command)[1:]).output


def test_report_has_the_command_of_the_next_trials(folder: str) -> None:
    sweep = SweepFolder(Path(folder).absolute())
    plw("report", sweep.root)
    shown = f"./{folder}" if folder.startswith("-") else folder
    in_markdown = re.findall(r"^Command: `(.*)`$", sweep.report_md.read_text(), re.MULTILINE)
    in_html = re.findall(r"<p>Command: <code>(.*)</code></p>", sweep.report_html.read_text())
    for [command] in (in_markdown, [html.unescape(text) for text in in_html]):
        assert arguments_in_a_shell(command) == [
            *("sweep", f"{shown}.yaml", "-o", shown),
            *("--set", "search.seeds=[0, 1, 2]"),
        ]


def test_commands_after_a_stop(folder: str) -> None:
    sweep = SweepFolder(Path(folder).absolute())
    with sweep_lock(sweep):
        output = plw("stop", sweep.root).output
    shown = f"./{folder}" if folder.startswith("-") else folder
    resume = re.findall(r"; (plw sweep .*) resumes it", output)[0]
    assert arguments_in_a_shell(resume) == ["sweep", f"{shown}.yaml", "-o", shown]
    status = re.findall(r"next: (plw .*)", output)[0]
    assert arguments_in_a_shell(status) == ["status", shown]


@pytest.mark.parametrize("name", NAMES)
def test_the_command_after_a_new_spec(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = f"./{name}.yaml" if name.startswith("-") else f"{name}.yaml"
    output = plw("init", "--", f"{name}.yaml").output
    assert arguments_in_a_shell(output.partition("next: ")[2]) == ["plan", path]
