"""`plw stop`: stop a running sweep or one of its trials."""

import click

from orchestrator.cli.on_cluster import run_on_cluster
from orchestrator.cli.options import json_option
from orchestrator.cli.render import print_json
from orchestrator.cli.sweep_argument import sweep_argument, trial_argument


@run_on_cluster
@click.command()
@sweep_argument
@trial_argument
@json_option
def stop(sweep: str | None, trial: str | None, as_json: bool) -> None:
    """Stop a running SWEEP, or only its TRIAL.

    SWEEP is a name in runs/ or a folder; default: the latest. TRIAL is an id or a prefix of one.
    Running trials write a checkpoint first; `plw sweep SPEC` resumes from it.
    """
    from orchestrator.monitoring import command_hints
    from orchestrator.monitoring.lookup import find_sweep_and_trial, find_trial
    from orchestrator.monitoring.stop import request_stop

    found, name = find_sweep_and_trial(sweep, trial)
    trial_id = None if name is None else find_trial(found, name)
    outcome = request_stop(found, trial_id)
    if as_json:
        print_json({"folder": str(found.root), "trial": trial_id, "outcome": outcome})
        return
    click.echo(outcome)
    click.echo(f"next: plw status {command_hints.sweep_argument(found)}")
