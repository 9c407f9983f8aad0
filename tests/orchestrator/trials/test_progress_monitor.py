"""The live table, on a pseudo-terminal."""

import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.orchestrator.sweeps import write_demo

MONITOR = """
import sys, threading
from pathlib import Path
from orchestrator.trials.progress_monitor import ProgressMonitor
from orchestrator.trials.redirect_output import redirect_output
from orchestrator.record.folder import SweepFolder

class Listener:
    synced = threading.Event()
    def sync_trial(self, trial_id):
        self.synced.set()
        return True

folder = SweepFolder(Path(sys.argv[1]))
with redirect_output(folder.log) as terminal:
    with ProgressMonitor(folder, Listener(), terminal, skipped=set()):
        assert Listener.synced.wait(60)
        print("Configuration for experiment tune-2026")
        print("a warning", file=sys.stderr)
"""


def test_output_of_libraries_goes_to_the_log_and_not_to_the_live_table(tmp_path: Path) -> None:
    folder = write_demo(tmp_path / "demo")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", MONITOR, str(folder.root)]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs) as driver:
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
    os.close(ours)
    assert driver.returncode == 0, shown
    assert b"sweep demo" in shown
    assert b"Configuration for experiment" not in shown
    assert b"a warning" not in shown
    assert folder.log.read_text() == "Configuration for experiment tune-2026\na warning\n"


def _read(terminal: int) -> bytes:
    """Return further output; empty once the last process with the terminal has ended."""
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux raises it when the other end is closed.
        return b""
