"""`python -m orchestrator.cli.job_entrypoint`: run a command as a job on a cluster.

The argument `sweep` runs the spec in the job's package; options may follow. Other arguments are a
`plw` command on sweeps. Ray starts the job on the head, in the folder of the package.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.cli.signals import interrupt_on_terminate
from orchestrator.cluster.job_package import SPEC_FILE, SWEEP_PREFIX, unpack_spec
from orchestrator.monitoring.command_hints import RUNS_VARIABLE
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.settings_file import read_yaml


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    from orchestrator.cli.main import main as plw

    interrupt_on_terminate()
    command = list(arguments)
    try:
        if command[:1] == ["sweep"]:
            command = ["sweep", str(_unpack(Path.cwd())), "--address", "auto", *command[1:]]
        else:
            command = [_resolve_sweep(argument) for argument in command]
    except InputError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2
    plw(command, prog_name="plw")
    return 0


def sweep_folder(content: Mapping[str, Any]) -> Path:
    """Return the output folder on the cluster for the sweep of a spec.

    Raises:
        InputError: neither the spec nor the cluster sets an absolute path.
    """
    runs = os.environ.get(RUNS_VARIABLE)
    given = content.get("output_dir")
    path = Path(given) if given else Path(runs or "") / str(content["name"])
    if path.is_absolute():
        return path
    if runs:
        return Path(runs) / path
    raise InputError(
        Problem(
            message="on a cluster, output_dir must be an absolute path on storage that all nodes "
            "share" + (f", got {given}" if given else ""),
            where="output_dir",
            fix=f"set it, or set {RUNS_VARIABLE} for `ray start` of the head in the cluster's file",
        )
    )


def _unpack(here: Path) -> Path:
    """Copy the spec's files to the cluster's storage, and write a spec with the new paths."""
    from ruamel.yaml import YAML

    content = read_yaml(here / SPEC_FILE)
    folder = sweep_folder(content)
    content = unpack_spec(content, here, folder.parent)
    content["output_dir"] = str(folder)
    path = here / f"{content['name']}.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(content, file)
    return path


def _resolve_sweep(argument: str) -> str:
    if not argument.startswith(SWEEP_PREFIX):
        return argument
    return str(sweep_folder({"output_dir": argument.removeprefix(SWEEP_PREFIX)}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
