"""The commands on the folder of a sweep, running or not."""

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from orchestrator.cli.options import folder_argument, json_option
from orchestrator.cli.submit import on_cluster, ui_on_cluster


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
    from orchestrator.cli.screen import console
    from orchestrator.record.reader import SweepReader
    from orchestrator.watching.lookup import open_sweep
    from orchestrator.watching.status import MAX_ROWS, status_table
    from orchestrator.watching.watch import watch

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
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=5000,
    show_default=True,
    help="Port on 127.0.0.1.",
)
def ui(folder: Path, port: int) -> None:
    """Open MLflow where the sweep in FOLDER was tracked."""
    from orchestrator.watching.lookup import ui_of

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
    from orchestrator.watching.lookup import find_sweep, find_trial
    from orchestrator.watching.stop import ask_to_stop
    from orchestrator.watching.typed import typed_sweep

    found = find_sweep(folder)
    trial_id = None if trial is None else find_trial(found, trial)
    outcome = ask_to_stop(found, trial_id)
    if as_json:
        asked = {"folder": str(found.root), "trial": trial_id, "outcome": outcome}
        click.echo(json.dumps(asked, indent=2))
        return
    click.echo(outcome)
    click.echo(f"next: plw status {typed_sweep(found)}")


@click.command()
@click.argument("trial")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("-f", "--follow", "is_followed", is_flag=True, help="Until the sweep has ended.")
@click.option(
    "-n", "--lines", "num_lines", type=click.IntRange(min=0), help="The last lines; default: all."
)
@json_option
def logs(
    trial: str, folder: Path | None, is_followed: bool, num_lines: int | None, as_json: bool
) -> None:
    """Print the log of TRIAL in FOLDER.

    TRIAL is an id or the beginning of one, `sweep` for what Ray and the libraries said, or
    `untuned` for the scoring of the untuned model. Without FOLDER, the sweep in runs/ that was
    started last.
    """
    from orchestrator.watching.logs import check_log, find_log, follow, last_lines
    from orchestrator.watching.lookup import find_sweep, latest_sweep

    if as_json and is_followed:
        raise click.UsageError("--json prints a log as it is: leave out --follow")
    found = latest_sweep(Path("runs")) if folder is None else find_sweep(folder)
    log = find_log(found, trial)
    if not is_followed:
        check_log(log)
    text, end = last_lines(log.path, num_lines) if log.path.exists() else ("", 0)
    if as_json:
        click.echo(json.dumps({"path": str(log.path), "lines": text.splitlines()}, indent=2))
        return
    with suppress(KeyboardInterrupt):
        click.echo(text, nl=False)
        for chunk in follow(found, log, end) if is_followed else ():
            click.echo(chunk, nl=False)


@click.command()
@folder_argument
@click.option("--tracking-uri", help="Post to this MLflow instead of the one it was tracked to.")
@json_option
def sync(folder: Path, tracking_uri: str | None, as_json: bool) -> None:
    """Bring MLflow up to the record of the sweep in FOLDER.

    Makes what MLflow lacks: all of it where its database was deleted or another one is given.
    """
    from rich.console import Console
    from rich.progress import track

    from orchestrator.cli.screen import trials_phrase
    from orchestrator.tracking.sync import sync_sweep
    from orchestrator.watching.lookup import open_sweep

    opened = open_sweep(folder)
    screen = Console(stderr=True)
    is_hidden = as_json or not screen.is_terminal
    progress = partial(track, description="trials", console=screen, disable=is_hidden)
    synced = sync_sweep(opened, tracking_uri, progress)
    if as_json:
        click.echo(json.dumps(asdict(synced), indent=2))
    elif synced.is_complete:
        click.echo(f"MLflow at {synced.uri} has the sweep and {trials_phrase(synced.num_runs)}")
        click.echo(f"next: plw ui {opened.relative()}")
    else:
        click.echo(f"MLflow at {synced.uri} did not take everything; run it again", err=True)
    sys.exit(0 if synced.is_complete else 1)


COMMANDS: tuple[click.Command, ...] = (
    *map(on_cluster, (status, logs, stop)),
    sync,
    ui_on_cluster(ui),
)
