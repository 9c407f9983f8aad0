"""`plw submit`: run a sweep on a cluster from this machine."""

import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from orchestrator.cli.on_cluster import check_cluster_options, cluster_options
from orchestrator.cli.options import PATH
from orchestrator.cli.render import format_size, print_commands


@click.command()
@click.argument("spec", type=PATH)
@click.option(
    "-o", "--output-dir", type=click.Path(), help="Folder on the cluster's shared storage."
)
@click.option("--tracking-uri", help="MLflow tracking URI, as the cluster's head reaches it.")
@click.option("--yes", is_flag=True, help="Send the listed files without asking.")
@click.option("--detach", is_flag=True, help="Return once the sweep is submitted.")
@cluster_options
def submit(
    spec: Path,
    output_dir: str | None,
    tracking_uri: str | None,
    yes: bool,
    detach: bool,
    cluster_file: Path | None,
    address: str | None,
) -> None:
    """Run SPEC on a cluster and follow its output; the sweep outlives this command.

    Uploads the code of plw-sweep and the small local files that the spec names at settings that
    are paths. They are listed first; on a terminal, the command asks. Run it again at any time,
    also on a new cluster with the same storage: finished trials are skipped.
    """
    from orchestrator.cluster.job_package import build_package
    from orchestrator.cluster.jobs import open_jobs
    from orchestrator.cluster.submit import check_trial_fits, read_spec
    from orchestrator.monitoring.command_hints import cluster_options_text

    check_cluster_options(cluster_file, address)
    content = read_spec(spec, output_dir=output_dir, tracking_uri=tracking_uri)
    if cluster_file is not None:
        check_trial_fits(content, cluster_file)
    name = content["name"]
    with TemporaryDirectory(prefix="plw-") as folder, ExitStack() as stack:
        package = build_package(content, Path(folder))
        for file in package.files:
            click.echo(
                f"sends {file.setting}: {file.source} ({len(file.files)} "
                f"file{'' if len(file.files) == 1 else 's'}, {format_size(file.num_bytes)})"
            )
        if package.files and not yes and sys.stdin.isatty():
            click.confirm("Send them to the cluster?", default=True, abort=True)
        jobs = stack.enter_context(open_jobs(address, cluster_file))
        job_id = jobs.submit_sweep(name, package.folder, code=package.code)
        click.echo(
            f"sweep {name}: submitted as job {job_id}; {format_size(package.num_bytes)} sent, "
            f"code {package.code}"
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
            (f"plw logs sweep {name} {options} -f", "show the output of Ray and the libraries"),
            (f"plw stop {name} {options}", "stop; running trials write a checkpoint"),
        ]
    )
