"""Print how our labels compare with the masks of other tools."""

from typing import TYPE_CHECKING

import click

from orchestrator.cli.render import console, make_table
from orchestrator.inspection.token_runs import visible
from trainers.foundation.counts import format_count

if TYPE_CHECKING:
    # Types only: this imports torch, which takes seconds.
    from orchestrator.inspection.mask_check import DifferenceCount, MaskCheck

_FIX = "install TRL (pip install 'trl>=1.16'), or use a chat template with {% generation %} markers"
_MAX_TEXT = 40  # characters of an example's text


def print_check(check: "MaskCheck") -> None:
    """Print the differences by tool and kind with one example each, and the result."""
    for comparison in check.comparisons:
        compared = comparison.num_examples - comparison.num_without_mask
        title = (
            f"{comparison.tool}: {comparison.num_equal} of {compared} examples have equal labels"
        )
        if comparison.num_without_mask:
            title += f" ({comparison.num_without_mask} others have no mask)"
        if not comparison.differences:
            click.echo(title)
            continue
        table = make_table(title, ("difference", "only trained by"), ("tokens", "examples"))
        table.add_column("explanation")
        table.add_column("first example")
        for count in comparison.differences:
            table.add_row(*_cells(count))
        console().print(table)
    for reason in check.not_compared:
        click.echo(f"not compared with {reason}")
    click.echo(_result(check))


def _cells(count: "DifferenceCount") -> tuple[str, ...]:
    text = visible(count.text)
    shown = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
    return (
        count.kind,
        count.trained_by,
        f"{count.num_tokens:,}",
        f"{count.num_examples:,}",
        count.explanation or "none: look at the example with plw data show",
        f"{count.example_id}: {shown}",
    )


def _result(check: "MaskCheck") -> str:
    if not check.num_compared:
        return f"error: nothing was compared; {_FIX}"
    if check.num_unexplained:
        return f"unexplained differences: {format_count(check.num_unexplained, 'example')}"
    has_differences = any(comparison.differences for comparison in check.comparisons)
    return "all differences are explained" if has_differences else "no differences"
