"""Run sections in a child process; a section that fails, hangs or crashes does not stop the rest.

One process runs all sections, because imports take seconds. If it dies, a new one runs the rest.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from benchmarks.gpu.results import RESULTS, SectionResult, write_results
from benchmarks.gpu.sections import GRACE, Section
from benchmarks.program import ROOT, log_progress

LOG = "log.txt"
Child = subprocess.Popen[bytes]


class Runner:
    """Runs sections on a device and writes the results after each."""

    def __init__(self, folder: Path, device: str, *, is_small: bool) -> None:
        self._folder = folder
        self._device = device
        self._is_small = is_small
        self._machine: dict[str, Any] = {}
        self.results: list[SectionResult] = []

    def run(self, sections: Sequence[Section]) -> None:
        """Run the sections in this order."""
        self._folder.mkdir(parents=True, exist_ok=True)
        remaining = list(sections)
        while remaining:
            done = len(self.results)
            self._run_in_child(remaining)
            started = self.results[done:]
            if not started:
                # Without a section, so the next process would fail too.
                self._add(remaining[0], f"no section could start: {self._log_end()}")
                return
            remaining = remaining[len(started) :]

    def _add(self, section: Section, error: str) -> None:
        self.results.append(SectionResult(name=section.name, title=section.title, error=error))
        self._write()

    def _log_end(self) -> str:
        log = (self._folder / LOG).read_text(encoding="utf-8", errors="replace")
        return log.strip().rpartition("\n")[2]

    def _run_in_child(self, sections: Sequence[Section]) -> None:
        with self._child(sections) as (child, events):
            timer: threading.Timer | None = None
            pending = iter(sections)
            for line in events:
                content = json.loads(line)
                match content.pop("event"):
                    case "machine":
                        self._machine = content
                    case "start":
                        section = next(pending)
                        time_s = section.time_s(is_small=self._is_small)
                        log_progress(f"{section.name}: at most {time_s:.0f} s")
                        # This error stays if the process does not reach the section's end.
                        limit_s = GRACE * time_s
                        reason = f"the process died, or was killed after {limit_s:.0f} s; see {LOG}"
                        self._add(section, reason)
                        timer = threading.Timer(limit_s, _kill, [child])
                        timer.start()
                    case "row":
                        self.results[-1].rows.append(content["row"])
                    case "end":
                        assert timer is not None
                        timer.cancel()
                        self.results[-1].error = content["error"]
                        self.results[-1].seconds = content["seconds"]
                        log_progress(_summary(self.results[-1]))
                self._write()
            if timer is not None:
                timer.cancel()

    @contextmanager
    def _child(self, sections: Sequence[Section]) -> Iterator[tuple[Child, IO[str]]]:
        read_fd, write_fd = os.pipe()
        paths = [str(ROOT), os.environ.get("PYTHONPATH")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
        if self._device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        size = "is-small" if self._is_small else "is-full"
        encoded = json.dumps([asdict(section) for section in sections])
        results = str(self._folder.absolute() / RESULTS)
        with (
            tempfile.TemporaryDirectory(prefix="plw-gpu-") as files,
            (self._folder / LOG).open("ab") as log,
            os.fdopen(read_fd) as events,
        ):
            arguments = [str(write_fd), self._device, files, results, size, encoded]
            child = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.gpu.child", *arguments],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[write_fd],
                start_new_session=True,
            )
            os.close(write_fd)
            try:
                yield child, events
            finally:
                _kill(child)
                child.wait()

    def _write(self) -> None:
        write_results(self._folder, self._machine, self.results)


def _kill(child: Child) -> None:
    """Kill the child with the processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _summary(result: SectionResult) -> str:
    state = "failed" if result.has_failed else "done"
    return f"{result.name}: {state}, {len(result.rows)} rows, {result.seconds:.0f} s"
