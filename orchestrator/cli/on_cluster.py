"""`--cluster` and `--address`: run a command on a Ray cluster instead of this machine."""

import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.options import ADDRESS, PATH

_SWEEP, _TRIAL = "sweep", "trial"


def cluster_options(
    command: Callable[..., Any], *, default: str = "this machine"
) -> Callable[..., Any]:
    """Add `--cluster` and `--address`, which select a cluster.

    Commands on a sweep ignore RAY_ADDRESS: they read the sweep's folder here, also on the node of a
    cluster, where the variable is set.
    """
    command = click.option("--address", help=f"{ADDRESS}; default: {default}.")(command)
    return click.option(
        "--cluster",
        "cluster_file",
        type=PATH,
        help="File from which `ray up` launched a cluster; connects over SSH.",
    )(command)


def check_cluster_options(cluster_file: Path | None, address: str | None) -> None:
    """Raise UsageError unless exactly one of the two options is given."""
    if (cluster_file is None) == (address is None):
        raise click.UsageError("give either --cluster FILE or --address ADDRESS")


def run_on_cluster(command: click.Command) -> click.Command:
    """Add the cluster options to a command on sweeps.

    With one of these options, the command runs as a job on the cluster.
    """
    run_here = command.callback
    assert run_here is not None

    @wraps(run_here)
    def run(cluster_file: Path | None, address: str | None, **values: Any) -> Any:
        if cluster_file is None and address is None:
            return run_here(**values)
        check_cluster_options(cluster_file, address)
        return _run_as_job(command, values, cluster_file, address)

    command.callback = run
    holder: Callable[..., Any] = cluster_options(lambda: None)
    command.params.extend(reversed(getattr(holder, "__click_params__", [])))
    return command


def _run_as_job(
    command: click.Command, values: dict[str, Any], cluster_file: Path | None, address: str | None
) -> None:
    from orchestrator.cluster.jobs import open_jobs
    from orchestrator.cluster.submit import find_job

    with open_jobs(address, cluster_file) as jobs:
        given = values.get(_SWEEP)
        job = find_job(jobs, given)
        sweep = (job.metadata or {})["plw_sweep"]
        names = []
        if any(parameter.name == _SWEEP for parameter in command.params):
            names = _sweep_and_trial(given, values.get(_TRIAL), sweep)
        arguments = [*names, *_arguments(command, values)]
        assert command.name is not None
        try:
            code = jobs.run(job, [command.name, *arguments])
        except KeyboardInterrupt:
            code = 0
    sys.exit(code)


def _sweep_and_trial(given: str | None, trial: str | None, sweep: str) -> list[str]:
    """Return the arguments `[SWEEP] [TRIAL]` for the head.

    Args:
        sweep: the name of the job's sweep, the latest one if none was given.
    """
    from orchestrator.cluster.job_package import SWEEP_PREFIX

    if given is None or Path(given).name == sweep or trial is not None or "/" in given:
        return [f"{SWEEP_PREFIX}{given or sweep}", *([] if trial is None else [trial])]
    # Only the head knows whether this is an older sweep on its storage or a trial.
    return [given]


def _arguments(command: click.Command, values: dict[str, Any]) -> Iterator[str]:
    """Yield the command-line arguments for `values`, without sweep and trial."""
    for parameter in command.params:
        value = values.get(str(parameter.name))
        if parameter.name in (_SWEEP, _TRIAL) or value is None or value is False:
            continue
        if isinstance(parameter, click.Argument):
            yield str(value)
        elif value is True:
            yield parameter.opts[-1]
        else:
            yield from (parameter.opts[-1], str(value))
