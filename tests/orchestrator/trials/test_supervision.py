"""A small program under supervision: faults, limits, stalls, signals, and processes left behind."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e.plw import poll

# Each test starts interpreters.
pytestmark = pytest.mark.slow

# ENGINE runs in the child process; `start` counts its starts from 0.
PROGRAM = """
import os, signal, subprocess, sys, time
from pathlib import Path
from orchestrator.trials.supervision import supervise

folder, stalled_s = Path(sys.argv[1]), float(sys.argv[2])

class Files:
    def num_gained(self):
        return sum(1 for _ in folder.glob("step-*"))

    def activity(self):
        return sum(1 for _ in folder.iterdir())

    def is_waiting(self):
        return (folder / "waiting").exists()

def engine():
    start = sum(1 for _ in folder.glob("start-*"))
    (folder / f"start-{start}").write_text(str(os.getpid()))
    ENGINE

def on_fault(fault, restart):
    print(f"{fault}: {restart}", flush=True)

sys.exit(supervise(engine, Files(), stalled_s=stalled_s, on_fault=on_fault))
"""


def start(folder: Path, engine: str, stalled_s: float = 600) -> subprocess.Popen[str]:
    program = PROGRAM.replace("ENGINE", "\n    ".join(engine.splitlines()))
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder), str(stalled_s)],
        stdout=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, engine: str, stalled_s: float = 600) -> tuple[int, list[str]]:
    """Return the exit code and the output of the program."""
    process = start(folder, engine, stalled_s)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output.splitlines()


def starts(folder: Path) -> int:
    return len(list(folder.glob("start-*")))


@pytest.mark.parametrize(
    ("engine", "code"),
    [("pass", 0), ("sys.exit(3)", 3), ("sys.exit(1)", 1)],
)
def test_an_engine_that_ends_by_itself_is_not_started_again(
    tmp_path: Path, engine: str, code: int
) -> None:
    assert run(tmp_path, engine) == (code, [])
    assert starts(tmp_path) == 1


def test_an_engine_that_ray_ended_is_started_again(tmp_path: Path) -> None:
    code, output = run(tmp_path, "if start < 2: os._exit([1, 76][start])")
    assert code == 0
    assert output == [
        "Ray ended the sweep's process, because one of Ray's processes died: 1",
        "Ray's control store (gcs_server) died: 2",
    ]


def test_three_restarts_without_a_step_end_the_sweep(tmp_path: Path) -> None:
    code, output = run(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    assert (code, starts(tmp_path)) == (1, 4)
    assert [line.rpartition(": ")[2] for line in output] == ["1", "2", "3", "None"]
    assert output[-1] == "the sweep's process was killed by SIGKILL: None"


def test_each_new_step_allows_three_more_restarts(tmp_path: Path) -> None:
    engine = "if start == 2: (folder / 'step-1').touch()\nif start < 5: os._exit(77)"
    code, output = run(tmp_path, engine)
    assert (code, starts(tmp_path)) == (0, 6)
    assert [line[-1] for line in output] == ["1", "2", "1", "2", "3"]


def test_an_engine_without_activity_is_started_again(tmp_path: Path) -> None:
    code, output = run(tmp_path, "if start == 0: time.sleep(600)", stalled_s=0.5)
    assert (code, starts(tmp_path)) == (0, 2)
    assert output == ["the sweep made no progress (retries.stalled_minutes): 1"]


def test_an_engine_may_wait_for_resources_without_activity(tmp_path: Path) -> None:
    (tmp_path / "waiting").touch()
    assert run(tmp_path, "time.sleep(1.5)", stalled_s=0.2) == (0, [])
    assert starts(tmp_path) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_reaches_the_engine_which_is_not_started_again(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = start(tmp_path, "time.sleep(600)")
    poll((tmp_path / "start-0").exists, "the engine to start")
    process.send_signal(number)
    process.communicate(timeout=60)
    assert (process.returncode, starts(tmp_path)) == (code, 1)


def test_a_fault_after_a_signal_ends_the_sweep_with_its_exit_code(tmp_path: Path) -> None:
    engine = (
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(1))\n"
        "(folder / 'ready').touch()\n"
        "time.sleep(600)"
    )
    process = start(tmp_path, engine)
    poll((tmp_path / "ready").exists, "the handler")
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (
        143,
        "Ray ended the sweep's process, because one of Ray's processes died: None\n",
    )


def test_no_process_outlives_the_engine(tmp_path: Path) -> None:
    engine = (
        "if start == 0:\n"
        "    child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "    (folder / 'child').write_text(str(child.pid))\n"
        "    os._exit(1)\n"
        "os.kill(int((folder / 'child').read_text()), 0)"
    )
    process = start(tmp_path, engine)
    process.communicate(timeout=60)
    # The second start found no such process, which is an error of ours, not of Ray.
    assert (process.returncode, starts(tmp_path)) == (1, 2)
    assert not psutil.pid_exists(int((tmp_path / "child").read_text()))


def test_all_processes_end_with_a_killed_supervisor(tmp_path: Path) -> None:
    engine = "subprocess.Popen(['sleep', '600'], start_new_session=True)\ntime.sleep(600)"
    process = start(tmp_path, engine)
    supervisor = psutil.Process(process.pid)
    # The guard, the engine and its child.
    poll(lambda: len(supervisor.children(recursive=True)) == 3, "all processes")
    family = supervisor.children(recursive=True)
    process.kill()
    process.communicate(timeout=60)
    # A container without an init process may leave zombies.
    poll(
        lambda: all(not one.is_running() or one.status() == "zombie" for one in family),
        "the end of all processes",
    )
