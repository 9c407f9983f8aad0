"""`plw ui`: open MLflow for a sweep on this machine or on a cluster."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import click

from orchestrator.cli.options import PATH
from orchestrator.cli.sweep_argument import sweep_argument


@click.command()
@sweep_argument
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=5000,
    help="Port on 127.0.0.1.",
)
@click.option(
    "--cluster",
    "cluster_file",
    type=PATH,
    help="Open the MLflow of the cluster that `ray up` launched from this file; without SWEEP.",
)
def ui(sweep: str | None, port: int, cluster_file: Path | None) -> None:
    """Open MLflow for SWEEP, or for a cluster.

    SWEEP is a name in runs/ or a folder; default: the latest.
    """
    if cluster_file is not None:
        if sweep is not None:
            raise click.UsageError("give either SWEEP or --cluster, whose MLflow has all sweeps")
        _open_cluster_pages(cluster_file, port)
        return
    from orchestrator.monitoring.lookup import mlflow_ui

    command, page = mlflow_ui(sweep, port)
    click.echo(f"MLflow: {page}   (Ctrl-C stops it)")
    if command:
        # Sweeps do not need MLflow's job workers, which keep running if the server is killed.
        os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
        os.execv(command[0], command)


def _open_cluster_pages(cluster_file: Path, port: int) -> None:
    """Forward local ports to the head's MLflow and dashboard until Ctrl-C."""
    from orchestrator.cluster.tunnel import DASHBOARD_PORT, MLFLOW_PORT, tunnel, wait_until_broken
    from orchestrator.tracking.uri import check_port

    check_port(port)
    with ExitStack() as stack:
        mlflow = stack.enter_context(tunnel(cluster_file, MLFLOW_PORT, port))
        dashboard = stack.enter_context(tunnel(cluster_file, DASHBOARD_PORT))
        click.echo(f"MLflow: http://127.0.0.1:{mlflow}/   (Ctrl-C closes both)")
        click.echo(f"Ray dashboard (requires the token): http://127.0.0.1:{dashboard}/")
        try:
            wait_until_broken(mlflow)
        except KeyboardInterrupt:
            return
    click.echo("the tunnel was closed; run the command again", err=True)
    sys.exit(1)
