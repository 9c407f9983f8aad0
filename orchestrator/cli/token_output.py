"""Print examples as rendered text and as runs of tokens, readable without colours."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.inspection.token_runs import Run, token_runs, visible, visible_token
from orchestrator.inspection.token_view import Cut, ExampleView, TokenView
from trainers.data.roles import COMPLETION_ROLES

_COLOURS = {
    "system": "magenta",
    "user": "cyan",
    "tool": "blue",
    "history": "bright_blue",
    "template": "yellow",
    "excluded": "white",
    "thinking": "bright_green",
    "completion": "green",
    "padding": "white",
}
# The legend always lists these roles, even if no token has them.
_USUAL_ROLES = ("system", "user", "template", "completion")
_MAX_RUN = 60  # tokens; longer runs are shortened to head and tail
_HEAD = 36
_TAIL = 12
_MAX_CUT_TEXT = 200  # characters of the text that truncation removes
_SEPARATOR = "│"
_LEFT_OUT = "… {} more, see --full …"


def print_examples(
    views: Sequence[ExampleView],
    screen: Console,
    *,
    weighting: str,
    has_ids: bool,
    is_full: bool,
) -> None:
    """Print each example as text, then with a line per run of tokens, or per token with `has_ids`.

    `weighting` describes the source of the weights.
    """
    screen.print(_legend(views, weighting))
    for view in views:
        runs = list(token_runs(view))
        screen.print()
        screen.print(_header(view))
        for warning in view.warnings:
            screen.print(Text(f"  warning: {warning}", style="bold red"))
        screen.print(_rendered_text(runs, is_full=is_full))
        table = _token_table if has_ids else _run_table
        screen.print(table(runs, is_full=is_full))


def _legend(views: Sequence[ExampleView], weighting: str) -> Text:
    legend = Text("roles: ")
    found = {one.role for view in views for one in view.roles}
    roles = [role for role in _COLOURS if role in found or role in _USUAL_ROLES]
    for index, role in enumerate(roles):
        legend.append(", " if index else "")
        legend.append(role, style=_COLOURS[role])
    legend.append(
        f"; weights: {weighting} (bold: 1); {_SEPARATOR} between tokens, ⏎ for a line break;"
        " the first token is not predicted, so its weight is 0; padding is never used"
    )
    return legend


def _header(view: ExampleView) -> Text:
    completion_roles = [role.name.lower() for role in COMPLETION_ROLES]
    completion = sum(one.num_tokens for one in view.roles if one.role in completion_roles)
    prompt = len(view.tokens) - completion
    ratio = f"; R_g {completion / prompt:.2f}" if prompt else ""
    weight = "" if view.sample_weight == 1 else f"; sample weight {view.sample_weight:g}"
    title = f"{view.id} (index {view.index}): {len(view.tokens)} tokens{ratio}{weight}"
    header = Text(title, style="bold")
    roles = "; ".join(
        f"{one.role} {one.num_tokens}, weight {one.weight_sum:g}" for one in view.roles
    )
    return header.append(f"\n  {roles}", style="not bold")


def _style(run: Run) -> str:
    return f"{'bold ' if run.weight >= 1 else ''}{_COLOURS[run.role]}"


def _rendered_text(runs: Sequence[Run | Cut], *, is_full: bool) -> Text:
    """Return the text that the model sees, indented behind a bar, in the colours of its roles."""
    text = Text()
    for run in runs:
        if isinstance(run, Cut):
            text.append(f"[{run.num_tokens} tokens truncated]", style="red")
            continue
        head, num_hidden, tail = _shortened(run.tokens, is_full=is_full)
        text.append(_lines(head), style=_style(run))
        if num_hidden:
            text.append(f" {_LEFT_OUT.format(num_hidden)} ", style="dim")
            text.append(_lines(tail), style=_style(run))
    bar = Text("\n  ▏")
    return Text("  ▏").append_text(bar.join(text.split("\n", allow_blank=True)))


def _lines(tokens: Sequence[TokenView]) -> str:
    """Return the text of tokens with its line breaks; other control characters are made visible."""
    return "\n".join(visible(line) for line in "".join(token.text for token in tokens).split("\n"))


def _shortened(
    tokens: Sequence[TokenView], *, is_full: bool
) -> tuple[Sequence[TokenView], int, Sequence[TokenView]]:
    """Return the first tokens, the number of those left out, and the last tokens."""
    if is_full or len(tokens) <= _MAX_RUN:
        return tokens, 0, ()
    return tokens[:_HEAD], len(tokens) - _HEAD - _TAIL, tokens[-_TAIL:]


def _run_table(runs: Sequence[Run | Cut], *, is_full: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("role")
    table.add_column("weight", justify="right")
    table.add_column("tokens", justify="right")
    table.add_column("text", overflow="fold")
    for run in runs:
        if isinstance(run, Cut):
            table.add_row("truncated", "", str(run.num_tokens), Text(_cut_text(run)), style="red")
            continue
        head, num_hidden, tail = _shortened(run.tokens, is_full=is_full)
        text = _joined(head, _style(run))
        if num_hidden:
            text.append(f" {_LEFT_OUT.format(num_hidden)} ", style="dim")
            text.append(_joined(tail, _style(run)))
        role = Text(run.role, style=_style(run))
        table.add_row(role, f"{run.weight:g}", str(len(run.tokens)), text)
    return table


def _joined(tokens: Sequence[TokenView], style: str) -> Text:
    text = Text()
    for index, token in enumerate(tokens):
        if index:
            text.append(_SEPARATOR, style="dim")
        text.append(visible_token(token), style=style)
    return text


def _cut_text(cut: Cut) -> str:
    text = visible(cut.text)
    return text if len(text) <= _MAX_CUT_TEXT else f"{text[:_MAX_CUT_TEXT]}…"


def _token_table(runs: Sequence[Run | Cut], *, is_full: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for heading in ("position", "id"):
        table.add_column(heading, justify="right")
    table.add_column("role")
    table.add_column("weight", justify="right")
    table.add_column("text", overflow="fold")
    for run in runs:
        if isinstance(run, Cut):
            lost = Text(f"{run.num_tokens} tokens: {_cut_text(run)}")
            table.add_row("", "", "truncated", "", lost, style="red")
            continue
        head, num_hidden, tail = _shortened(run.tokens, is_full=is_full)
        for row in _token_rows(run, head, run.start):
            table.add_row(*row)
        if num_hidden:
            table.add_row("…", "", "", "", f"{num_hidden} more, see --full", style="dim")
        for row in _token_rows(run, tail, run.start + len(head) + num_hidden):
            table.add_row(*row)
    return table


def _token_rows(
    run: Run, tokens: Sequence[TokenView], start: int
) -> Iterator[tuple[str, str, Text, str, Text]]:
    for position, token in enumerate(tokens, start=start):
        yield (
            str(position),
            str(token.id),
            Text(token.role, style=_style(run)),
            f"{token.weight:g}",
            Text(f"{_SEPARATOR}{visible_token(token)}{_SEPARATOR}", style=_style(run)),
        )
