"""Tests of `plw sweep --notify`: the command's environment, and its failures."""

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli import notify
from orchestrator.cli.notify import notify_at_end
from tests.orchestrator.plw import refused
from trainers.foundation.errors import InputError, Problem

COMMAND = 'echo "$PLW_STATE|$PLW_EXIT_CODE|$PLW_SWEEP|$PLW_FOLDER" > ended.txt'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (None, "done|0"),
        (SystemExit(0), "done|0"),
        (SystemExit(3), "failed trials|3"),
        (SystemExit(130), "stopped|130"),
        (SystemExit(143), "stopped|143"),
        (SystemExit(1), "error|1"),
        (KeyboardInterrupt(), "stopped|130"),
        (InputError(Problem(message="m", fix="f")), "error|2"),
        (RuntimeError(), "error|1"),
    ],
)
def test_the_command_gets_the_state_of_the_sweep(
    here: Path, end: BaseException | None, expected: str
) -> None:
    def run() -> None:
        with notify_at_end(COMMAND, name="mine", folder=here / "runs" / "mine"):
            if end is not None:
                raise end

    if end is None:
        run()
    else:
        with pytest.raises(type(end)):
            run()
    assert (here / "ended.txt").read_text() == f"{expected}|mine|{here}/runs/mine\n"


def test_a_failing_command_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    with notify_at_end("exit 7", name="mine", folder=Path("x")):
        pass
    assert capsys.readouterr().err == "warning: --notify ended with exit code 7\n"


def test_a_command_that_does_not_end_is_given_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "TIMEOUT_S", 0.1)
    with notify_at_end("exec sleep 60", name="mine", folder=Path("x")):
        pass
    assert "warning: --notify failed: " in capsys.readouterr().err


def test_a_sweep_that_cannot_start_notifies(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = "model: {path: gone}\ndata: {path: gone.jsonl}\n"
    spec += "search: {space: {loss.prompt_loss_weight: [0, 1]}}\n"
    (here / "mine.yaml").write_text(spec)
    monkeypatch.setenv("PLW_NOTIFY", COMMAND)
    refused("sweep", "mine.yaml")
    assert (here / "ended.txt").read_text() == f"error|2|mine|{here}/runs/mine\n"


def test_output_of_the_command_is_not_mixed_into_json() -> None:
    code = (
        "from pathlib import Path; from orchestrator.cli.notify import notify_at_end\n"
        "with notify_at_end('echo sent', name='m', folder=Path('x')): print('{}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("{}\n", "sent\n")


def test_the_process_of_the_trials_does_not_notify(here: Path) -> None:
    """`plw sweep` runs the trials in a child process, which leaves the block as well."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "from orchestrator.cli.notify import notify_at_end\n"
        "with notify_at_end('echo $PLW_STATE', name='m', folder=Path('x')):\n"
        "    pid = os.fork()\n"
        "    sys.exit(0 if pid == 0 else os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) + 3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "failed trials\n")
