"""`plw report --scores`: read a table of scores, answer, and print or write the answer."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from orchestrator.statistics.conclusions import Answer
    from orchestrator.statistics.table import ScoreRow

# Of the median loss, where no margin is given: losses have no scale of their own.
_MARGIN_SHARE = 0.01


@dataclass(frozen=True, kw_only=True)
class ScoresRequest:
    """What is asked for: `margin` None takes the default; `unit` is that of losses.

    `markdown` and `html`: the files to write; without either the answer is printed.
    """

    path: Path
    lower_is_better: bool
    unit: str | None
    margin: float | None
    markdown: Path | None
    html: Path | None
    as_json: bool


def report_scores(request: ScoresRequest) -> None:
    """Print or write the answer to the scores in `request.path`.

    Raises:
        InputError: scores that cannot be used, or a file that cannot be written.
    """
    from orchestrator.statistics.conclusions import answer
    from orchestrator.statistics.study import MARGIN_POINTS
    from orchestrator.statistics.table import read_scores, scale_warning

    _check_outputs(request)
    rows = read_scores(request.path, shares=not request.lower_is_better)
    warning = None if request.lower_is_better else scale_warning(rows)
    if warning is not None:
        # The answer has a note of it.
        click.echo(f"warning: {warning}", err=True)
    margin = request.margin
    notes = []
    if margin is None:
        margin = _loss_margin(rows) if request.lower_is_better else MARGIN_POINTS
        if request.lower_is_better:
            notes.append(
                f"the margin is {margin:g}, 1% of the median loss; --margin sets another one"
            )
    found = answer(
        rows,
        shares=not request.lower_is_better,
        higher_is_better=not request.lower_is_better,
        margin=margin,
        unit=request.unit,
    )
    _deliver(request, rows, replace(found, notes=(*found.notes, *notes)), margin)


def _deliver(
    request: ScoresRequest, rows: Sequence["ScoreRow"], found: "Answer", margin: float
) -> None:
    from orchestrator.statistics.conclusions_markdown import answer_markdown
    from trainers.foundation.files import write_text

    if request.html is not None:
        from orchestrator.report.scores_page import write_scores_page

        write_scores_page(request.html, rows, found, source=request.path, margin=margin)
    if request.markdown is not None:
        write_text(request.markdown, answer_markdown(found))
    if request.as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    written = [str(path) for path in (request.markdown, request.html) if path is not None]
    if written:
        click.echo(f"wrote {' and '.join(written)}")
    else:
        click.echo(answer_markdown(found), nl=False)


def _loss_margin(rows: Sequence["ScoreRow"]) -> float:
    """1% of the median loss in two digits; of the largest one where the median is 0."""
    sizes = [abs(row.score) for row in rows]
    size = median(sizes) or max(sizes) or 1.0
    return float(f"{_MARGIN_SHARE * size:.2g}")


def _check_outputs(request: ScoresRequest) -> None:
    """Refuse files that cannot be written before the work is done."""
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
            message=f"--output and --html name one file, {request.html}", fix="give two"
        )
        raise InputError(problem)
