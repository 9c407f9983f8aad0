"""`--cluster` and `--address`: run a command on a Ray cluster instead of this machine."""

import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.options import PATH

_FOLDER = "folder"


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--cluster` and `--address`, which select a cluster."""
    command = click.option(
        "--address", help="The dashboard of a running Ray cluster, http://HOST:8265."
    )(command)
    return click.option(
        "--cluster",
        "cluster_file",
        type=PATH,
        help="The file from which `ray up` launched the cluster; connects over SSH.",
    )(command)


def check_cluster_options(cluster_file: Path | None, address: str | None) -> None:
    """Raise UsageError unless exactly one of the two options is given."""
    if (cluster_file is None) == (address is None):
        raise click.UsageError("give either --cluster FILE or --address URL")


def run_on_cluster(command: click.Command) -> click.Command:
    """Add the cluster options to a command on a sweep's folder.

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
    from orchestrator.cluster.job_package import SWEEP_PREFIX
    from orchestrator.cluster.jobs import open_jobs
    from orchestrator.cluster.submit import find_job

    with open_jobs(address, cluster_file) as jobs:
        given = values.get(_FOLDER)
        job = find_job(jobs, None if given is None else str(given))
        sweep = (job.metadata or {})["plw_sweep"] if given is None else str(given)
        arguments = [*_arguments(command, values), f"{SWEEP_PREFIX}{sweep}"]
        assert command.name is not None
        try:
            code = jobs.run(job, [command.name, *arguments])
        except KeyboardInterrupt:
            code = 0
    sys.exit(code)


def _arguments(command: click.Command, values: dict[str, Any]) -> Iterator[str]:
    """Yield the command-line arguments for `values`, without the folder."""
    for parameter in command.params:
        value = values.get(str(parameter.name))
        if parameter.name == _FOLDER or value is None or value is False:
            continue
        if isinstance(parameter, click.Argument):
            yield str(value)
        elif value is True:
            yield parameter.opts[-1]
        else:
            yield from (parameter.opts[-1], str(value))
