"""The commands on the folder of a sweep, running or not."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import click

from orchestrator.cli_options import folder_argument, json_option


@click.command()
@folder_argument
@click.option("-w", "--watch", "is_watched", is_flag=True, help="Until the sweep ends or Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks of --watch.",
)
@click.option("--all", "shows_all", is_flag=True, help="All trials, however many.")
@json_option
def status(folder: Path, is_watched: bool, interval: float, shows_all: bool, as_json: bool) -> None:
    """Show the trials of the sweep in FOLDER, from any terminal or machine that sees it."""
    from orchestrator.lookup import open_sweep
    from orchestrator.reader import SweepReader
    from orchestrator.screen import console
    from orchestrator.status import MAX_ROWS, status_table
    from orchestrator.watch import watch

    opened = open_sweep(folder)
    most = None if shows_all else MAX_ROWS
    if is_watched:
        watch(opened, sys.stdout, interval_s=interval, max_rows=most, as_json=as_json)
        return
    reader = SweepReader(opened)
    reader.refresh()
    trials = reader.statuses()
    if as_json:
        click.echo(json.dumps([asdict(trial) for trial in trials], indent=2))
    else:
        console().print(status_table(reader.sweep.name, trials, max_rows=most))


@click.command()
@folder_argument
@json_option
def report(folder: Path, as_json: bool) -> None:
    """Write the report of the sweep in FOLDER: which PLW, and how sure."""
    from orchestrator.lookup import open_sweep
    from orchestrator.report import report_json, write_report

    opened = open_sweep(folder)
    if as_json:
        click.echo(json.dumps(report_json(opened), indent=2))
        return
    write_report(opened)
    click.echo(f"wrote {opened.report_md} and {opened.report_html}")


@click.command()
@folder_argument
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=5000,
    show_default=True,
    help="Port on 127.0.0.1.",
)
def ui(folder: Path, port: int) -> None:
    """Open MLflow where the sweep in FOLDER was tracked."""
    from orchestrator.lookup import ui_of

    command, page = ui_of(folder, port)
    click.echo(f"MLflow: {page}   (Ctrl-C stops it)")
    if command:
        # Its job workers serve nothing that a sweep has, and would outlive a server that is killed.
        os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
        os.execv(command[0], command)


@click.command()
@folder_argument
@click.argument("trial", required=False)
@json_option
def stop(folder: Path, trial: str | None, as_json: bool) -> None:
    """Ask the sweep that runs in FOLDER, or one TRIAL of it, to end.

    Running trials write a checkpoint first; `plw sweep SPEC` goes on from there.
    """
    from orchestrator.lookup import find_sweep, find_trial
    from orchestrator.stop import ask_to_stop

    found = find_sweep(folder)
    trial_id = None if trial is None else find_trial(found, trial)
    outcome = ask_to_stop(found, trial_id)
    if as_json:
        asked = {"folder": str(found.root), "trial": trial_id, "outcome": outcome}
        click.echo(json.dumps(asked, indent=2))
        return
    click.echo(outcome)
    click.echo(f"next: plw status {found.relative()}")


COMMANDS: tuple[click.Command, ...] = (status, report, stop, ui)
