"""`plw sweep --notify`: run a command at the end of a sweep."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import notify_option
from orchestrator.cli.signals import (
    BAD_INPUT,
    FAILED_TRIALS,
    FAILURE,
    INTERRUPTED,
    TERMINATED,
)

if TYPE_CHECKING:
    # Types only: this imports pydantic models.
    from orchestrator.spec.sweep_spec import SweepSpec

# A message that cannot be sent must not keep the machine.
TIMEOUT_S = 60.0
_STDERR = 2
_STATES = {0: "done", FAILED_TRIALS: "failed trials", INTERRUPTED: "stopped", TERMINATED: "stopped"}


def notifies(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --notify to a command on a spec; it runs once the command has ended."""

    @notify_option
    @wraps(command)
    def with_notify(spec: "SweepSpec", spec_path: Path, notify: str | None, **rest: Any) -> Any:
        with notify_at_end(notify, name=spec.name, folder=spec.folder):
            return command(spec, spec_path, **rest)

    return with_notify


@contextmanager
def notify_at_end(command: str | None, *, name: str, folder: Path) -> Iterator[None]:
    """Run `command` in a shell once the block ends, with the state of the sweep.

    PLW_STATE is `done`, `failed trials`, `stopped` or `error`; PLW_EXIT_CODE is the exit code of
    `plw sweep`, which the command does not change. Its output goes to stderr, because that of
    `--json` is on stdout.
    """
    from trainers.foundation.errors import InputError

    code: object = FAILURE
    # The sweep runs in a child process, which leaves this block too.
    process = os.getpid()
    try:
        yield
        code = 0
    except SystemExit as end:
        code = 0 if end.code is None else end.code
        raise
    except KeyboardInterrupt:
        code = INTERRUPTED
        raise
    except Exception as error:
        code = BAD_INPUT if isinstance(error, InputError) else FAILURE
        raise
    finally:
        if command is not None and os.getpid() == process:
            _run(command, code if isinstance(code, int) else FAILURE, name, folder)


def _run(command: str, code: int, name: str, folder: Path) -> None:
    values = {
        "PLW_STATE": _STATES.get(code, "error"),
        "PLW_EXIT_CODE": str(code),
        "PLW_SWEEP": name,
        "PLW_FOLDER": str(folder),
    }
    sys.stdout.flush()
    try:
        done = subprocess.run(
            command,
            shell=True,
            env=os.environ | values,
            stdout=_STDERR,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        click.echo(f"warning: --notify failed: {error}", err=True)
        return
    if done.returncode:
        click.echo(f"warning: --notify ended with exit code {done.returncode}", err=True)
