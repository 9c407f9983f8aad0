"""Sweeps on a cluster from a laptop: `plw submit`, and `--cluster` of the commands on a sweep."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

_FOLDER = "folder"


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--cluster` and `--address`, which name a cluster that runs elsewhere."""
    for option in reversed(_options()):
        command = option(command)
    return command


def _options() -> list[Any]:
    return [
        click.option(
            "--cluster",
            "cluster_file",
            type=click.Path(path_type=Path),
            help="The file from which `ray up` made the cluster; reached by SSH.",
        ),
        click.option("--address", help="The dashboard of a running Ray cluster, http://HOST:8265."),
    ]


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("-o", "--output-dir", type=click.Path(), help="On the cluster's shared storage.")
@click.option("--tracking-uri", help="MLflow tracking URI, as the cluster's head sees it.")
@click.option("--detach", is_flag=True, help="Come back once the sweep is submitted.")
@cluster_options
def submit(
    spec: Path,
    output_dir: str | None,
    tracking_uri: str | None,
    detach: bool,
    cluster_file: Path | None,
    address: str | None,
) -> None:
    """Run SPEC on a cluster and follow it; the sweep goes on when this command ends.

    Sends our code and the files that the spec names here, if they are small. Run it again at any
    time, also on a new cluster with the same storage: what is done is skipped.
    """
    from orchestrator.cluster.jobs import jobs_of
    from orchestrator.cluster.shipment import pack
    from orchestrator.cluster.submit import check_shape, read_spec
    from orchestrator.watching.typed import target_of

    _check_target(cluster_file, address)
    content = read_spec(spec, output_dir=output_dir, tracking_uri=tracking_uri)
    if cluster_file is not None:
        check_shape(content, cluster_file)
    name = content["name"]
    there = target_of(address, cluster_file)
    with TemporaryDirectory(prefix="plw-") as folder, ExitStack() as stack:
        shipment = pack(content, Path(folder))
        jobs = stack.enter_context(jobs_of(address, cluster_file))
        job_id = jobs.submit_sweep(name, shipment.folder, code=shipment.code)
        click.echo(
            f"sweep {name}: submitted as job {job_id}; {shipment.num_bytes / 2**20:.1f} MiB sent, "
            f"code {shipment.code}"
        )
        if not detach:
            try:
                # It says itself what is next.
                sys.exit(jobs.follow(job_id, lambda text: click.echo(text, nl=False)))
            except KeyboardInterrupt:
                click.echo(f"\nthe sweep {name} goes on without this command", err=True)
    click.echo("next:")
    for command, purpose in (
        (f"plw status {name} {there}", "the trials at a glance"),
        (f"plw logs sweep {name} {there} -f", "what Ray and the libraries say"),
        (f"plw stop {name} {there}", "running trials write a checkpoint and end"),
    ):
        click.echo(f"  {command}  {purpose}")


def on_cluster(command: click.Command) -> click.Command:
    """A command on the folder of a sweep that, given a cluster, runs there instead of here."""
    here = command.callback
    assert here is not None

    @wraps(here)
    def here_or_there(cluster_file: Path | None, address: str | None, **values: Any) -> Any:
        if cluster_file is None and address is None:
            return here(**values)
        _check_target(cluster_file, address)
        return _run_there(command, values, cluster_file, address)

    command.callback = here_or_there
    described: Callable[..., Any] = cluster_options(lambda: None)
    command.params.extend(reversed(getattr(described, "__click_params__", [])))
    return command


def ui_on_cluster(command: click.Command) -> click.Command:
    """`plw ui` that, given a cluster, opens a tunnel to its head's MLflow and dashboard."""
    here = command.callback
    assert here is not None

    @wraps(here)
    def here_or_there(cluster_file: Path | None, folder: Path | None, **values: Any) -> Any:
        if cluster_file is not None:
            return _open_pages(cluster_file, values["port"])
        if folder is None:
            raise click.UsageError("Missing argument 'FOLDER'.")
        return here(folder=folder, **values)

    command.callback = here_or_there
    command.params.append(
        click.Option(
            ["--cluster", "cluster_file"],
            type=click.Path(path_type=Path),
            help="The MLflow of the cluster that `ray up` made from this file; needs no FOLDER.",
        )
    )
    for parameter in command.params:
        if parameter.name == _FOLDER:
            parameter.required = False
    return command


def _check_target(cluster_file: Path | None, address: str | None) -> None:
    if (cluster_file is None) == (address is None):
        raise click.UsageError("Give either --cluster FILE or --address URL.")


def _run_there(
    command: click.Command, values: dict[str, Any], cluster_file: Path | None, address: str | None
) -> None:
    from orchestrator.cli.submitted import SWEEP_NAMED
    from orchestrator.cluster.jobs import jobs_of
    from orchestrator.cluster.submit import find_job

    with jobs_of(address, cluster_file) as jobs:
        given = values.get(_FOLDER)
        job = find_job(jobs, None if given is None else str(given))
        sweep = (job.metadata or {})["plw_sweep"] if given is None else str(given)
        words = [*_words(command, values), f"{SWEEP_NAMED}{sweep}"]
        assert command.name is not None
        try:
            code = jobs.run(job, [command.name, *words])
        except KeyboardInterrupt:
            code = 0
    sys.exit(code)


def _words(command: click.Command, values: dict[str, Any]) -> Iterator[str]:
    """The command line that gives `values`, but for the folder."""
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


def _open_pages(cluster_file: Path, port: int) -> None:
    from orchestrator.cluster.tunnel import DASHBOARD_PORT, MLFLOW_PORT, tunnel, wait_until_broken
    from orchestrator.tracking.uri import check_port

    check_port(port)
    with ExitStack() as stack:
        mlflow = stack.enter_context(tunnel(cluster_file, MLFLOW_PORT, port))
        dashboard = stack.enter_context(tunnel(cluster_file, DASHBOARD_PORT))
        click.echo(f"MLflow: http://127.0.0.1:{mlflow}/   (Ctrl-C closes both)")
        click.echo(f"Ray's dashboard, which asks for the token: http://127.0.0.1:{dashboard}/")
        try:
            wait_until_broken(mlflow)
        except KeyboardInterrupt:
            return
    click.echo("the tunnel broke; run it again", err=True)
    sys.exit(1)


COMMANDS: tuple[click.Command, ...] = (submit,)
