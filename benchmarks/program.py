"""What the benchmarks have in common as programs: command line, lines of progress, children."""

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

# By flag: type, default and what it says.
Options = Mapping[str, tuple[type, Any, str]]
ROOT = Path(__file__).parents[1]


def command_line(module: str, description: str | None, options: Options) -> argparse.ArgumentParser:
    """The command line of `python -m module`, to which it may add what is more than a value."""
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
    """A console on which a table is not folded to fewer columns, where it could not be read."""
    console = Console()
    console.width = max(console.width, min_width)
    return console


def say(line: str) -> None:
    """A line of progress, kept out of the result."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", file=sys.stderr, flush=True)


def run_python(
    arguments: Sequence[str], *, folder: Path | None = None, threads: int | None = None
) -> None:
    """Run Python with `arguments` to its end, in `folder` and with `threads`, if given.

    Raises:
        SystemExit: it failed; what it wrote has been said.
    """
    paths = [str(ROOT), os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    # A file and no pipe, whose end would wait for what the program leaves running.
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
            say(output.read())
            raise SystemExit(child.returncode)


def result_of(arguments: Sequence[str], job: Mapping[str, Any], *, threads: int) -> Any:
    """What a Python program makes of `job`, both as JSON, alone in a process with `threads`.

    The program gets two more arguments: the file of the job, and the one to write the result to.

    Raises:
        SystemExit: it failed; what it wrote has been said.
    """
    with tempfile.TemporaryDirectory(prefix="plw-bench-") as folder:
        job_file, result_file = Path(folder, "job.json"), Path(folder, "result.json")
        job_file.write_text(json.dumps(job))
        run_python([*arguments, str(job_file), str(result_file)], threads=threads)
        return json.loads(result_file.read_text())
