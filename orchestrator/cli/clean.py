"""`plw clean`: delete models and checkpoints of a finished sweep."""

import sys
from typing import TYPE_CHECKING

import click

from orchestrator.cli.render import format_size
from orchestrator.cli.sweep_argument import sweep_argument

if TYPE_CHECKING:
    from orchestrator.spec.sweep_spec import KeepModels


@click.command()
@sweep_argument
@click.option(
    "--keep",
    type=click.Choice(["all", "best", "last", "none"]),
    default="best",
    help="Models to keep; `best` by the first of search.objectives.",
)
@click.option("--yes", is_flag=True, help="Delete without asking.")
def clean(sweep: str | None, keep: "KeepModels", yes: bool) -> None:
    """Delete models, old checkpoints and temporary files of SWEEP.

    SWEEP is a name in runs/ or a folder; default: the latest, except with --yes. Lists them
    with sizes and asks first. Records, scores and the report stay. Trials that are not done keep
    their checkpoints, and a running sweep is not touched.
    """
    if yes and sweep is None:
        raise click.UsageError("--yes requires SWEEP, because nothing asks before deleting")
    from orchestrator.monitoring.lookup import open_sweep
    from orchestrator.record.lock import sweep_lock
    from orchestrator.trials.retention import find_removals, remove, total_bytes

    found = open_sweep(sweep)
    with sweep_lock(found):
        removals = find_removals(found, keep)
        if not removals:
            click.echo("nothing to delete")
            return
        for one in removals:
            size = "in the store" if one.num_bytes is None else format_size(one.num_bytes)
            click.echo(f"{size:>12}  {one.path.relative_to(found.root)}  {one.reason}")
        total = format_size(total_bytes(removals))
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("add --yes to delete without a terminal")
            click.confirm(f"Delete {len(removals)} folders ({total}) of {found.root}?", abort=True)
        remove(found, removals)
    click.echo(f"deleted {total}")
