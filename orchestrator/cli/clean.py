"""`plw clean`: delete models and checkpoints of a finished sweep."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import folder_argument
from orchestrator.cli.render import format_size

if TYPE_CHECKING:
    from orchestrator.spec.sweep_spec import KeepModels


@click.command()
@folder_argument
@click.option(
    "--keep",
    type=click.Choice(["all", "best", "last", "none"]),
    default="best",
    show_default=True,
    help="Models to keep; `best` by the first of search.objectives.",
)
@click.option("--yes", is_flag=True, help="Delete without asking.")
def clean(folder: Path, keep: "KeepModels", yes: bool) -> None:
    """Delete models, old checkpoints and temporary files of the sweep in FOLDER.

    Lists them with sizes and asks first. Records, scores and the report stay. Trials that are not
    done keep their checkpoints, and a running sweep is not touched.
    """
    from orchestrator.monitoring.lookup import open_sweep
    from orchestrator.record.lock import sweep_lock
    from orchestrator.trials.retention import find_removals, remove, total_bytes

    sweep = open_sweep(folder)
    with sweep_lock(sweep):
        removals = find_removals(sweep, keep)
        if not removals:
            click.echo("nothing to delete")
            return
        for one in removals:
            size = "in the store" if one.num_bytes is None else format_size(one.num_bytes)
            click.echo(f"{size:>12}  {one.path.relative_to(sweep.root)}  {one.reason}")
        total = format_size(total_bytes(removals))
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("add --yes to delete without a terminal")
            click.confirm(f"Delete {len(removals)} folders ({total}) of {sweep.root}?", abort=True)
        remove(sweep, removals)
    click.echo(f"deleted {total}")
