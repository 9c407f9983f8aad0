"""Render command output: JSON for programs, tables for people.

rich is imported on first use, because `plw --help` imports this module.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_json(content: Any, *, ensure_ascii: bool = True) -> None:
    """Print a pydantic model, or plain data that may contain dataclasses, as JSON."""
    if hasattr(content, "model_dump_json"):
        click.echo(content.model_dump_json(indent=2))
    else:
        click.echo(json.dumps(content, indent=2, default=asdict, ensure_ascii=ensure_ascii))


def console(*, is_plain: bool = False) -> "Console":
    """Return a console for stdout, of fixed width if piped; `is_plain` turns colours off."""
    from rich.console import Console

    from orchestrator.monitoring.status import PIPED_WIDTH

    screen = Console(no_color=is_plain or None, highlight=not is_plain)
    return screen if screen.is_terminal else Console(width=PIPED_WIDTH)


def make_table(title: str, left: Sequence[str], right: Sequence[str] = ()) -> "Table":
    """Return an empty table with the columns `left`, then the right-aligned columns `right`."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for heading in left:
        table.add_column(heading)
    for heading in right:
        table.add_column(heading, justify="right")
    return table


def print_commands(commands: Sequence[tuple[str, str]], *, has_heading: bool = True) -> None:
    """Print the commands to run next with their purposes, aligned."""
    width = max(len(command) for command, _ in commands)
    if has_heading:
        click.echo("next:")
    for command, purpose in commands:
        click.echo(f"  {command.ljust(width)}  {purpose}")


def format_trial_count(count: int) -> str:
    """Return `1 trial`, `2 trials`."""
    return f"{count} trial{'' if count == 1 else 's'}"


def format_size(num_bytes: int) -> str:
    """Return a size such as `320 B`, `1.5 MiB` or `14.0 GiB`."""
    if num_bytes < 1024:
        return f"{num_bytes} B"
    size, unit = num_bytes / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.1f} {unit}"
