"""`plw sync`: post a sweep to MLflow from its record."""

import sys
from functools import partial

import click

from orchestrator.cli.options import json_option
from orchestrator.cli.render import format_trial_count, print_json
from orchestrator.cli.sweep_argument import sweep_argument
from orchestrator.foundation.shell_words import shell_path


@click.command()
@sweep_argument
@click.option("--tracking-uri", help="MLflow to post to; default: the one of the sweep.")
@json_option
def sync(sweep: str | None, tracking_uri: str | None, as_json: bool) -> None:
    """Post the record of SWEEP to MLflow.

    SWEEP is a name in runs/ or a folder; default: the latest. Posts what MLflow
    lacks: everything if its database was deleted or is a new one.
    """
    from rich.console import Console
    from rich.progress import track

    from orchestrator.monitoring.lookup import open_sweep
    from orchestrator.tracking.sync import sync_sweep

    opened = open_sweep(sweep)
    screen = Console(stderr=True)
    is_hidden = as_json or not screen.is_terminal
    progress = partial(track, description="trials", console=screen, disable=is_hidden)
    synced = sync_sweep(opened, tracking_uri, progress)
    if as_json:
        print_json(synced)
    elif synced.is_complete:
        num_trials = format_trial_count(synced.num_runs)
        click.echo(f"MLflow at {synced.uri} has the sweep and {num_trials}")
        click.echo(f"next: plw ui {shell_path(opened.relative())}")
    else:
        click.echo(f"MLflow at {synced.uri} did not accept everything; run it again", err=True)
    sys.exit(0 if synced.is_complete else 1)
