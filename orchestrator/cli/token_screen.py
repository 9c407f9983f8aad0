"""What `plw data show` prints: runs of tokens with role and weight, readable without colour."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.data.token_view import ExampleView, TokenView

_COLOURS = {
    "system": "magenta",
    "user": "cyan",
    "template": "yellow",
    "completion": "green",
    "padding": "white",
}
_ABOVE = 60  # tokens of a run that are all shown; of a longer one its two ends
_HEAD = 36
_TAIL = 12
_SEPARATOR = "│"
# What would break the line, or not be seen.
_VISIBLE = str.maketrans({"\n": "⏎", "\r": "␍", "\t": "⇥"})


@dataclass(frozen=True)
class _Run:
    """Tokens of one role in a row, of which `num_hidden` are left out after `head`."""

    role: str
    weight: float
    start: int
    head: Sequence[TokenView]
    num_hidden: int
    tail: Sequence[TokenView]

    @property
    def num_tokens(self) -> int:
        return len(self.head) + self.num_hidden + len(self.tail)

    @property
    def style(self) -> str:
        return f"{'bold ' if self.weight >= 1 else ''}{_COLOURS[self.role]}"


def print_examples(
    views: Sequence[ExampleView],
    screen: Console,
    *,
    weighting: str,
    has_ids: bool,
    is_full: bool,
) -> None:
    """Each example with a line for each run of tokens, or with `has_ids` for each token.

    `weighting` says where the weights come from.
    """
    screen.print(_legend(weighting))
    for view in views:
        screen.print()
        screen.print(_header(view))
        for warning in view.warnings:
            screen.print(Text(f"  warning: {warning}", style="bold red"))
        runs = list(_runs(view.tokens, is_full=is_full))
        screen.print(_token_table(runs) if has_ids else _run_table(runs))


def _legend(weighting: str) -> Text:
    legend = Text("roles: ")
    roles = ("system", "user", "template", "completion")
    for index, role in enumerate(roles):
        legend.append(", " if index else "")
        legend.append(role, style=_COLOURS[role])
    legend.append(
        f"; weights: {weighting} (bold: 1); {_SEPARATOR} between tokens, ⏎ for a line break;"
        " nothing predicts the first token, so it does not count; padding never takes part"
    )
    return legend


def _header(view: ExampleView) -> Text:
    counts = {role: sum(token.role == role for token in view.tokens) for role in _COLOURS}
    shown = ", ".join(f"{role} {count}" for role, count in counts.items() if count)
    prompt = len(view.tokens) - counts["completion"]
    ratio = f"; R_g {counts['completion'] / prompt:.2f}" if prompt else ""
    return Text(f"{view.id}: {len(view.tokens)} tokens ({shown}){ratio}", style="bold")


def _runs(tokens: Sequence[TokenView], *, is_full: bool) -> Iterator[_Run]:
    start = 0
    # The first token, whose weight is 0, stands with those that follow it.
    weight_of = {token.role: token.weight for token in tokens}
    for role, group in groupby(tokens, key=lambda token: token.role):
        run, weight = list(group), weight_of[role]
        is_cut = not is_full and len(run) > _ABOVE
        head = run[:_HEAD] if is_cut else run
        tail = run[-_TAIL:] if is_cut else []
        yield _Run(role, weight, start, head, len(run) - len(head) - len(tail), tail)
        start += len(run)


def _run_table(runs: Sequence[_Run]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("role")
    table.add_column("weight", justify="right")
    table.add_column("tokens", justify="right")
    table.add_column("text", overflow="fold")
    for run in runs:
        text = _joined(run.head, run.style)
        if run.num_hidden:
            text.append(f" … {run.num_hidden} more, see --full … ", style="dim")
            text.append(_joined(run.tail, run.style))
        table.add_row(Text(run.role, style=run.style), f"{run.weight:g}", str(run.num_tokens), text)
    return table


def _joined(tokens: Sequence[TokenView], style: str) -> Text:
    text = Text()
    for index, token in enumerate(tokens):
        if index:
            text.append(_SEPARATOR, style="dim")
        text.append(visible(token.text), style=style)
    return text


def _token_table(runs: Sequence[_Run]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for heading in ("position", "id"):
        table.add_column(heading, justify="right")
    table.add_column("role")
    table.add_column("weight", justify="right")
    table.add_column("text", overflow="fold")
    for run in runs:
        after = run.start + len(run.head) + run.num_hidden
        for position, token in enumerate(run.head, start=run.start):
            table.add_row(*_cells(position, token, run))
        if run.num_hidden:
            table.add_row("…", "", "", "", f"{run.num_hidden} more, see --full", style="dim")
        for position, token in enumerate(run.tail, start=after):
            table.add_row(*_cells(position, token, run))
    return table


def _cells(position: int, token: TokenView, run: _Run) -> tuple[str, str, Text, str, Text]:
    text = Text(f"{_SEPARATOR}{visible(token.text)}{_SEPARATOR}", style=run.style)
    return (
        str(position),
        str(token.id),
        Text(token.role, style=run.style),
        f"{token.weight:g}",
        text,
    )


def visible(text: str) -> str:
    """`text` on one line: line breaks and tabs as signs, other control characters by number."""
    return "".join(
        character if character.isprintable() else f"\\x{ord(character):02x}"
        for character in text.translate(_VISIBLE)
    )
