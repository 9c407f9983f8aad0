"""`plw report --scores`: analyse a table of scores, and print or write the conclusions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click

from orchestrator.cli.render import print_json

if TYPE_CHECKING:
    from orchestrator.statistics.conclusions import Conclusions
    from orchestrator.statistics.table import ScoreRow

# Default margin as a share of the median loss: losses have no natural scale.
_MARGIN_SHARE = 0.01


@dataclass(frozen=True, kw_only=True)
class ScoresRequest:
    """Options of `plw report --scores`.

    `unit` is the unit of losses. `margin` is None for the default. `markdown` and `html` are the
    files to write; without either, Markdown is printed.
    """

    path: Path
    lower_is_better: bool
    unit: str | None
    margin: float | None
    markdown: Path | None
    html: Path | None
    as_json: bool


def report_scores(request: ScoresRequest) -> None:
    """Analyse the scores in `request.path`, and print or write the conclusions.

    Raises:
        InputError: the scores are invalid, or a file cannot be written.
    """
    from orchestrator.statistics.conclusions import draw_conclusions
    from orchestrator.statistics.study import MARGIN_POINTS
    from orchestrator.statistics.table import read_scores, scale_warning

    _check_outputs(request)
    rows = read_scores(request.path, shares=not request.lower_is_better)
    warning = None if request.lower_is_better else scale_warning(rows)
    if warning is not None:
        # The conclusions contain it as a note as well.
        click.echo(f"warning: {warning}", err=True)
    margin = request.margin
    notes = []
    if margin is None:
        margin = _default_loss_margin(rows) if request.lower_is_better else MARGIN_POINTS
        if request.lower_is_better:
            notes.append(
                f"the margin is {margin:g}, 1% of the median loss; change it with --margin"
            )
    found = draw_conclusions(
        rows,
        shares=not request.lower_is_better,
        higher_is_better=not request.lower_is_better,
        margin=margin,
        unit=request.unit,
    )
    _write_conclusions(request, rows, replace(found, notes=(*found.notes, *notes)), margin)


def _write_conclusions(
    request: ScoresRequest, rows: Sequence["ScoreRow"], found: "Conclusions", margin: float
) -> None:
    from orchestrator.statistics.conclusions_markdown import format_markdown
    from trainers.foundation.files import write_text

    if request.html is not None:
        from orchestrator.report.scores_page import write_scores_page

        write_scores_page(request.html, rows, found, source=request.path, margin=margin)
    if request.markdown is not None:
        write_text(request.markdown, format_markdown(found))
    if request.as_json:
        print_json(found)
        return
    written = [str(path) for path in (request.markdown, request.html) if path is not None]
    if written:
        click.echo(f"wrote {' and '.join(written)}")
    else:
        click.echo(format_markdown(found), nl=False)


def _default_loss_margin(rows: Sequence["ScoreRow"]) -> float:
    """Return 1% of the median loss, or of the largest loss if the median is 0, to two digits."""
    sizes = [abs(row.score) for row in rows]
    size = median(sizes) or max(sizes) or 1.0
    return float(f"{_MARGIN_SHARE * size:.2g}")


def _check_outputs(request: ScoresRequest) -> None:
    """Check before the analysis that the output files can be written."""
    from trainers.foundation.errors import InputError, Problem
    from trainers.foundation.files import check_output_folder

    given = {"--output": request.markdown, "--html": request.html}
    for option, path in given.items():
        if path is None:
            continue
        if path.is_dir():
            fix = f"give a file, such as {path / 'report'}.{'html' if option == '--html' else 'md'}"
            raise InputError(Problem(message=f"{path} is a folder", where=option, fix=fix))
        check_output_folder(path.parent, where=option)
    if request.html is not None and request.html == request.markdown:
        problem = Problem(
            message=f"--output and --html are the same file, {request.html}",
            fix="give two different files",
        )
        raise InputError(problem)
