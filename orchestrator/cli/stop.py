"""`plw stop`: stop a running sweep or one of its trials."""

from pathlib import Path

import click

from orchestrator.cli.on_cluster import run_on_cluster
from orchestrator.cli.options import folder_argument, json_option
from orchestrator.cli.render import print_json


@run_on_cluster
@click.command()
@folder_argument
@click.argument("trial", required=False)
@json_option
def stop(folder: Path, trial: str | None, as_json: bool) -> None:
    """Stop the sweep that is running in FOLDER, or only its TRIAL.

    Running trials write a checkpoint first; `plw sweep SPEC` resumes from it.
    """
    from orchestrator.monitoring.command_hints import sweep_argument
    from orchestrator.monitoring.lookup import find_sweep, find_trial
    from orchestrator.monitoring.stop import request_stop

    found = find_sweep(folder)
    trial_id = None if trial is None else find_trial(found, trial)
    outcome = request_stop(found, trial_id)
    if as_json:
        print_json({"folder": str(found.root), "trial": trial_id, "outcome": outcome})
        return
    click.echo(outcome)
    click.echo(f"next: plw status {sweep_argument(found)}")
