"""`plw ls`: list sweeps with state, answer and cost."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.on_cluster import run_on_cluster
from orchestrator.cli.options import PATH, json_option
from orchestrator.cli.render import console, make_table, print_json
from trainers.foundation.errors import InputError, Problem

if TYPE_CHECKING:
    # Types only: this imports the statistics, which take seconds.
    from orchestrator.monitoring.sweep_list import SweepSummary


@run_on_cluster
@click.command("ls")
@click.argument("folder", required=False, type=PATH)
@json_option
def list_sweeps(folder: Path | None, as_json: bool) -> None:
    """List the sweeps in FOLDER with their state, answer and cost.

    The default FOLDER is runs/, on a cluster the folder for sweeps on its storage. The latest sweep
    comes first.
    """
    from orchestrator.monitoring.lookup import runs_folder
    from orchestrator.monitoring.sweep_list import summarize_sweeps

    if folder is not None and not folder.is_dir():
        raise InputError(Problem(message="no such folder", where=str(folder), fix="correct it"))
    runs = folder or runs_folder()
    found = list(summarize_sweeps(runs))
    if as_json:
        print_json(found)
    elif found:
        _print_table(found)
    else:
        click.echo(f"no sweeps in {runs}; plw init and plw sweep start one")


def _print_table(sweeps: Iterable["SweepSummary"]) -> None:
    from rich.text import Text

    from orchestrator.monitoring.sweep_list import format_age

    table = make_table("sweeps", ("name", "state", "trials", "answer"), ("cost", "age"))
    for one in sweeps:
        failed = f", {one.num_failed} failed" if one.num_failed else ""
        cells = (
            one.name,
            one.state,
            f"{one.num_done}/{one.num_trials}{failed}",
            f"see plw report {one.name}" if one.answer is None else one.answer,
            _cost(one),
            format_age(one.age_s),
        )
        # Text, not str: a name may contain rich markup.
        table.add_row(*(Text(cell) for cell in cells))
    console().print(table)


def _cost(sweep: "SweepSummary") -> str:
    """Return GPU hours and money, or the hours for which trials held their workers."""
    if sweep.gpu_hours is None:
        return f"{sweep.held_hours:.1f} h"
    money = "" if sweep.money is None else f", {sweep.money:.2f}"
    return f"{sweep.gpu_hours:.1f} GPU h{money}"
