"""`plw submit`: run a sweep on a cluster from this machine."""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from orchestrator.cli.on_cluster import check_cluster_options, cluster_options
from orchestrator.cli.options import PATH, notify_option, set_option
from orchestrator.cli.render import format_size, print_commands

if TYPE_CHECKING:
    # Types only: this imports the packages of a spec's files.
    from orchestrator.cluster.job_package import JobPackage


@click.command()
@click.argument("spec", type=PATH)
@click.option(
    "-o", "--output-dir", type=click.Path(), help="Folder on the cluster's shared storage."
)
@click.option("--tracking-uri", help="MLflow tracking URI, as the cluster's head reaches it.")
@set_option
@notify_option
@click.option("--yes", is_flag=True, help="Send the listed files without asking.")
@click.option("--detach", is_flag=True, help="Return once the sweep is submitted.")
@partial(cluster_options, default="RAY_ADDRESS")
def submit(
    spec: Path,
    output_dir: str | None,
    tracking_uri: str | None,
    overrides: Sequence[str],
    notify: str | None,
    yes: bool,
    detach: bool,
    cluster_file: Path | None,
    address: str | None,
) -> None:
    """Run SPEC on a cluster and follow its output.

    The sweep continues if this command ends. Uploads the code of plw-sweep and the small local
    files in the spec's path settings. They are listed first; on a terminal, the command asks. Run
    it again at any time, also on a new cluster with the same storage: finished trials are skipped,
    and a sweep of this name that is running there is followed instead of started.
    """
    from orchestrator.cluster.job_package import build_package
    from orchestrator.cluster.jobs import open_jobs
    from orchestrator.cluster.submit import check_trial_fits, read_spec
    from orchestrator.monitoring.command_hints import cluster_options_text

    if cluster_file is None:
        address = address or os.environ.get("RAY_ADDRESS")
    check_cluster_options(cluster_file, address)
    content = read_spec(spec, output_dir=output_dir, tracking_uri=tracking_uri, overrides=overrides)
    if cluster_file is not None:
        check_trial_fits(content, cluster_file)
    name = content["name"]
    with TemporaryDirectory(prefix="plw-") as folder, ExitStack() as stack:
        package = build_package(content, Path(folder))
        jobs = stack.enter_context(open_jobs(address, cluster_file))
        running = jobs.running(name)
        if running is None:
            _confirm(package, is_confirmed=yes)
            job_id = jobs.submit_sweep(name, package, notify=notify)
            click.echo(
                f"sweep {name}: submitted as job {job_id}; {format_size(package.num_bytes)} sent, "
                f"code {package.code}"
            )
        else:
            job_id = str(running.submission_id)
            click.echo(f"sweep {name} is running as job {job_id}; nothing was sent")
            if not package.is_that_of(running.metadata or {}):
                click.echo(
                    "warning: it runs another spec, other files or other code; to run these, stop "
                    "it or wait for its end, and submit again",
                    err=True,
                )
        if not detach:
            try:
                # The job's output ends with the next commands.
                sys.exit(jobs.follow(job_id, lambda text: click.echo(text, nl=False)))
            except KeyboardInterrupt:
                click.echo(f"\nthe sweep {name} continues without this command", err=True)
    options = cluster_options_text(address, cluster_file)
    print_commands(
        [
            (f"plw status {name} {options}", "show the trials"),
            (f"plw logs {name} {options} -f", "show the output of Ray and the libraries"),
            (f"plw stop {name} {options}", "stop; running trials write a checkpoint"),
        ]
    )


def _confirm(package: "JobPackage", *, is_confirmed: bool) -> None:
    """List the files that will be sent; on a terminal, ask unless `is_confirmed`."""
    for file in package.files:
        click.echo(
            f"sends {file.setting}: {file.source} ({len(file.files)} "
            f"file{'' if len(file.files) == 1 else 's'}, {format_size(file.num_bytes)})"
        )
    if package.files and not is_confirmed and sys.stdin.isatty():
        click.confirm("Send them to the cluster?", default=True, abort=True)
