"""`plw compare`: two scored models on the items that both answered."""

from pathlib import Path

import click

from orchestrator.cli.options import PATH, force_option, json_option
from orchestrator.cli.sweep_argument import models_argument


@click.command()
@models_argument(2, "A B")
@click.option("--html", type=PATH, help="Write a page with the differing items side by side.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Bootstrap seed.")
@force_option
@json_option
def compare(
    models: list[Path], html: Path | None, seed: int, overwrite: bool, as_json: bool
) -> None:
    """Compare the scores of models A and B on their common items.

    A and B are trials of SWEEP, by id or a prefix of one, or `untuned`; or folders: a trial, its
    model, or the output of `plw eval`. SWEEP is a name in runs/ or a folder; default: the latest.
    """
    from orchestrator.analysis.model_comparison import compare_models
    from orchestrator.cli.render import console, make_table, print_json
    from orchestrator.foundation.safe_write import check_overwrite
    from orchestrator.report.comparison_page import (
        HEADINGS,
        LEGEND,
        LEVELS,
        comparison_cells,
        write_comparison_page,
    )

    if html is not None:
        check_overwrite(html, overwrite=overwrite)
    comparison = compare_models(*models, seed=seed)
    if html is not None:
        write_comparison_page(html, comparison, overwrite=overwrite)
    if as_json:
        print_json(comparison)
        return
    click.echo(f"A: {comparison.name_a}")
    click.echo(f"B: {comparison.name_b}")
    for level in LEVELS:
        rows = [row for row in comparison.rows if row.level == level]
        if rows:
            table = make_table(f"by {level}", HEADINGS[:1], HEADINGS[1:])
            for row in rows:
                table.add_row(*comparison_cells(row))
            console().print(table)
    click.echo(LEGEND)
    for answer in comparison.answers:
        click.echo(answer)
    for note in comparison.notes:
        click.echo(f"note: {note}")
    differing = len(comparison.differing)
    click.echo(f"of {comparison.num_items} items, {differing} differ in output or value")
    if html is not None:
        click.echo(f"wrote {html}")
    elif differing:
        click.echo("next: --html PAGE shows them side by side")
