"""The live table on a terminal, which is a pseudo-terminal here."""

import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.orchestrator.sweeps import write_demo

FOLLOW = """
import sys, threading
from pathlib import Path
from orchestrator.trials.follow import Follower
from orchestrator.trials.quiet import output_to
from orchestrator.record.folder import SweepFolder

class Listener:
    synced = threading.Event()
    def sync_trial(self, trial_id):
        self.synced.set()
        return True

folder = SweepFolder(Path(sys.argv[1]))
with output_to(folder.log) as terminal:
    with Follower(folder, Listener(), terminal, skipped=set()):
        assert Listener.synced.wait(60)
        print("Configuration for experiment tune-2026")
        print("a warning", file=sys.stderr)
"""


def test_what_libraries_print_beside_the_live_table_goes_to_the_log(tmp_path: Path) -> None:
    folder = write_demo(tmp_path / "demo")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", FOLLOW, str(folder.root)]
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
    """More of what was shown; nothing once the last process that could write has ended."""
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux's way to say that the other end is closed.
        return b""
