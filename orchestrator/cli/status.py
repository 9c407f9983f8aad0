"""`plw status`: show the trials of a sweep."""

import sys

import click

from orchestrator.cli.on_cluster import run_on_cluster
from orchestrator.cli.options import json_option
from orchestrator.cli.render import console, print_json
from orchestrator.cli.sweep_argument import sweep_argument


@run_on_cluster
@click.command()
@sweep_argument
@click.option(
    "-w", "--watch", "is_watched", is_flag=True, help="Refresh until the sweep ends or Ctrl-C."
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    metavar="SECONDS",
    help="Refresh interval of --watch.",
)
@click.option("--all", "shows_all", is_flag=True, help="Show all trials of a large sweep.")
@json_option
def status(
    sweep: str | None, is_watched: bool, interval: float, shows_all: bool, as_json: bool
) -> None:
    """Show the trials of SWEEP.

    SWEEP is a name in runs/ or a folder; default: the latest. Works from any terminal or machine
    that has the folder.
    """
    from orchestrator.monitoring.command_hints import resume_hint
    from orchestrator.monitoring.lookup import open_sweep
    from orchestrator.monitoring.status import MAX_ROWS, status_table
    from orchestrator.monitoring.watch import watch
    from orchestrator.record.reader import SweepReader

    opened = open_sweep(sweep)
    max_rows = None if shows_all else MAX_ROWS
    if is_watched:
        watch(opened, sys.stdout, interval_s=interval, max_rows=max_rows, as_json=as_json)
        return
    reader = SweepReader(opened)
    reader.refresh()
    trials = reader.statuses()
    if as_json:
        print_json(list(trials))
    else:
        sweep_record = reader.sweep
        table = status_table(
            sweep_record.name, trials, num_planned=sweep_record.num_planned, max_rows=max_rows
        )
        console().print(table)
        hint = resume_hint(opened, [trial.state for trial in trials])
        if hint is not None:
            click.echo(hint)
