"""`python -m orchestrator.cli.submitted`: what a job on a cluster runs of a command of a laptop.

`sweep` runs the spec that came with the job; anything else is a command of `plw` on the folder of
a sweep. Ray starts it on the head, in the folder that was shipped.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.cli.signals import interrupt_on_terminate
from orchestrator.cluster.shipment import SPEC_FILE, unpack_spec
from orchestrator.watching.typed import RUNS_VARIABLE
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.settings_file import read_yaml

# Stands before what a laptop calls a sweep: its name, or its folder on the cluster.
SWEEP_NAMED = "plw-sweep:"


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    from orchestrator.cli.main import main as plw

    interrupt_on_terminate()
    command = list(arguments)
    try:
        if command == ["sweep"]:
            command = ["sweep", str(_unpacked(Path.cwd())), "--address", "auto"]
        else:
            command = [_with_folder(one) for one in command]
    except InputError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2
    plw(command, prog_name="plw")
    return 0


def sweep_folder(content: Mapping[str, Any]) -> Path:
    """Where on the cluster the sweep of this spec goes.

    Raises:
        InputError: neither the spec nor the cluster says it.
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
            message="where do the results go? On a cluster output_dir must be an absolute path on "
            "storage that all nodes share" + (f", got {given}" if given else ""),
            where="output_dir",
            fix=f"set it, or set {RUNS_VARIABLE} where the cluster's file starts Ray on the head",
        )
    )


def _unpacked(here: Path) -> Path:
    """The spec as it is to be run here, its files on the cluster's storage."""
    from ruamel.yaml import YAML

    content = read_yaml(here / SPEC_FILE)
    folder = sweep_folder(content)
    content = unpack_spec(content, here, folder.parent)
    content["output_dir"] = str(folder)
    path = here / f"{content['name']}.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(content, file)
    return path


def _with_folder(argument: str) -> str:
    if not argument.startswith(SWEEP_NAMED):
        return argument
    return str(sweep_folder({"output_dir": argument.removeprefix(SWEEP_NAMED)}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
