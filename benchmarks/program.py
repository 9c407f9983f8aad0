"""Shared parts of the benchmark programs: command line, progress lines, child processes."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

# By flag: type, default and help text.
Options = Mapping[str, tuple[type, Any, str]]
ROOT = Path(__file__).parents[1]


def command_line(module: str, description: str | None, options: Options) -> argparse.ArgumentParser:
    """Return the parser of `python -m module`; the caller may add further options."""
    shown = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, (kind, default, text) in options.items():
        shown.add_argument(name, type=kind, default=default, help=f"{text} (default: %(default)s)")
    shown.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return shown


def wide_console(min_width: int) -> Console:
    """Return a console of at least `min_width` columns, so that tables do not wrap."""
    console = Console()
    console.width = max(console.width, min_width)
    return console


def log_progress(line: str) -> None:
    """Print a progress line to stderr."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", file=sys.stderr, flush=True)


def run_python(
    arguments: Sequence[str], *, folder: Path | None = None, threads: int | None = None
) -> None:
    """Run Python with `arguments` and wait for it, in `folder` and with `threads` if given.

    Raises:
        SystemExit: the program failed; its output has been printed to stderr.
    """
    paths = [str(ROOT), os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    # Use a file, because a pipe stays open while processes started by the program still run.
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if child.returncode != 0:
            output.seek(0)
            log_progress(output.read())
            raise SystemExit(child.returncode)


def run_job_process(arguments: Sequence[str], job: Mapping[str, Any], *, threads: int) -> Any:
    """Run a Python program on `job` in a separate process; return its result.

    The program gets two more arguments: the paths of the job file and of the result file, both
    JSON.

    Raises:
        SystemExit: the program failed; its output has been printed to stderr.
    """
    with tempfile.TemporaryDirectory(prefix="plw-bench-") as folder:
        job_file, result_file = Path(folder, "job.json"), Path(folder, "result.json")
        job_file.write_text(json.dumps(job))
        run_python([*arguments, str(job_file), str(result_file)], threads=threads)
        return json.loads(result_file.read_text())
