"""`plw plan` and `plw sweep`: list the trials of a spec, and run them."""

import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.notify import notifies
from orchestrator.cli.options import json_option, spec_arguments
from orchestrator.cli.render import format_trial_count, print_json
from orchestrator.foundation.shell_words import shell_path

if TYPE_CHECKING:
    from orchestrator.record.folder import SweepFolder


def _forbid_downloads(context: click.Context, _: click.Parameter, is_offline: bool) -> None:
    """Set the variable that Hugging Face's libraries read when they are imported."""
    if not is_offline:
        return
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    if before is None:
        context.call_on_close(lambda: os.environ.pop("HF_HUB_OFFLINE", None))


def _print_warning(warning: str) -> None:
    click.echo(f"warning: {warning}", err=True)


def _print_downloads(data_sets: Sequence[str]) -> None:
    click.echo(f"downloading data sets of evals.tasks: {', '.join(data_sets)}", err=True)


@click.command()
@spec_arguments
@click.option(
    "--offline",
    is_flag=True,
    callback=_forbid_downloads,
    expose_value=False,
    help="Reject models and data sets that would be downloaded.",
)
@json_option
def plan(
    spec: Any, spec_path: Path, address: str | None, overrides: Sequence[str], as_json: bool
) -> None:
    """List the trials of SPEC with their cost; start nothing.

    All benchmarks are loaded, without a model.
    """
    from orchestrator.cli.sweep_output import print_plan
    from orchestrator.trials.sweep_checks import check_cluster, check_sweep, describe_local_scoring

    prepared = check_sweep(
        spec,
        address=address,
        on_download=_print_downloads,
        on_warning=_print_warning,
        restores=False,
    )
    scoring = describe_local_scoring(spec) if address is None else check_cluster(spec, address)
    if as_json:
        print_json(prepared.plan)
        return
    print_plan(prepared.plan)
    if scoring is not None:
        click.echo(f"{'scoring':19}{scoring}")
    changes = "".join(f" --set {shlex.quote(override)}" for override in overrides)
    click.echo(f"next: plw sweep {shell_path(spec_path)}{changes}")


@click.command()
@spec_arguments
@notifies
@json_option
def sweep(
    spec: Any, spec_path: Path, address: str | None, overrides: Sequence[str], as_json: bool
) -> None:
    """Run the trials of SPEC that are not done, and write the report.

    If Ray fails, it is started again, and the trials resume from their checkpoints.
    """
    from orchestrator.monitoring.command_hints import log_location
    from orchestrator.record.folder import SweepFolder
    from orchestrator.record.progress import SweepProgress
    from orchestrator.trials.supervision import MAX_RESTARTS, can_supervise, supervise

    run = partial(_run, spec, spec_path, address, overrides, as_json=as_json)
    if not can_supervise():
        run()
        return
    folder = SweepFolder(spec.folder)

    def on_fault(fault: str, restart: int | None) -> None:
        if restart is not None:
            then = f"starting it again ({restart} of {MAX_RESTARTS})"
        else:
            then = f"to continue from the last checkpoints: {_resume(folder, spec_path, address)}"
        click.echo(f"{fault}; {then}; log: {log_location(folder)}", err=True)

    minutes = spec.retries.stalled_minutes
    sys.exit(
        supervise(
            run,
            SweepProgress(folder, may_wait=address is not None),
            stalled_s=None if minutes is None else 60 * minutes,
            on_fault=on_fault,
        )
    )


def _resume(folder: "SweepFolder", spec_path: Path, address: str | None) -> str:
    """Return the command that continues the sweep."""
    from orchestrator.monitoring.command_hints import is_on_cluster, resume_command

    if not folder.sweep_json.exists():
        return f"plw sweep {shell_path(spec_path)}"
    command = resume_command(folder.read_sweep())
    return command if address is None or is_on_cluster() else f"{command} --address {address}"


def _run(
    spec: Any, spec_path: Path, address: str | None, overrides: Sequence[str], *, as_json: bool
) -> None:
    """Run a sweep in this process, print its outcome and exit."""
    from orchestrator.cli.signals import FAILED_TRIALS, FAILURE, interrupt_on_terminate
    from orchestrator.cli.sweep_output import outcome_json, print_outcome
    from orchestrator.monitoring.command_hints import log_location
    from orchestrator.record.folder import SweepFolder
    from orchestrator.trials.sweep import run_sweep
    from orchestrator.trials.sweep_checks import check_sweep

    prepared = check_sweep(
        spec, address=address, on_download=_print_downloads, on_warning=_print_warning
    )
    if not as_json:
        click.echo(
            f"sweep {spec.name}: {format_trial_count(prepared.plan.num_trials)}, "
            f"{prepared.plan.num_done} done before; log: {log_location(SweepFolder(spec.folder))}"
        )
    interrupt_exit_code = interrupt_on_terminate()
    try:
        outcome = run_sweep(
            spec, prepared, spec_path, address=address, is_silent=as_json, overrides=overrides
        )
    except KeyboardInterrupt:
        click.echo("interrupted; run the same command to resume from checkpoints", err=True)
        sys.exit(interrupt_exit_code())
    if as_json:
        print_json(outcome_json(outcome))
    else:
        print_outcome(outcome)
    if outcome.was_stopped:
        sys.exit(interrupt_exit_code())
    if outcome.num_unfinished:
        sys.exit(FAILURE)
    sys.exit(FAILED_TRIALS if outcome.num_failed else 0)
