"""`plw logs`: print the log of a trial or of the sweep."""

from contextlib import suppress

import click

from orchestrator.cli.on_cluster import run_on_cluster
from orchestrator.cli.options import json_option
from orchestrator.cli.render import print_json
from orchestrator.cli.sweep_argument import sweep_argument, trial_argument


@run_on_cluster
@click.command()
@sweep_argument
@trial_argument
@click.option(
    "-f", "--follow", "is_followed", is_flag=True, help="Print new lines until the sweep ends."
)
@click.option(
    "-n",
    "--lines",
    "num_lines",
    type=click.IntRange(min=0),
    help="Number of last lines to print; default: all.",
)
@json_option
def logs(
    sweep: str | None,
    trial: str | None,
    is_followed: bool,
    num_lines: int | None,
    as_json: bool,
) -> None:
    """Print the log of a TRIAL of SWEEP, or the log of SWEEP itself.

    SWEEP is a name in runs/ or a folder; default: the latest. TRIAL is an id or a prefix of one, or
    `untuned` for the scoring of the untuned model. Without TRIAL, the log of the sweep is printed:
    the output of Ray and the libraries.
    """
    from orchestrator.monitoring.logs import check_log, find_log, follow, last_lines
    from orchestrator.monitoring.lookup import SWEEP, find_sweep_and_trial

    if as_json and is_followed:
        raise click.UsageError("--json does not work with --follow")
    found, name = find_sweep_and_trial(sweep, trial)
    log = find_log(found, name or SWEEP)
    if not is_followed:
        check_log(log)
    text, end = last_lines(log.path, num_lines) if log.path.exists() else ("", 0)
    if as_json:
        print_json({"path": str(log.path), "lines": text.splitlines()})
        return
    with suppress(KeyboardInterrupt):
        click.echo(text, nl=False)
        for chunk in follow(found, log, end) if is_followed else ():
            click.echo(chunk, nl=False)
