"""The table of a comparison of two models, and a page with the items that differ."""

from pathlib import Path

from orchestrator.analysis.comparison_rows import ComparisonRow
from orchestrator.analysis.model_comparison import ModelComparison
from orchestrator.foundation.safe_write import write_output
from orchestrator.report.rendering import templates
from orchestrator.statistics.messages import format_p_value

HEADINGS = ("Scores", "Items", "A", "B", "B - A", "95% interval", "p", "p (Holm)", "McNemar")
LEGEND = (
    "B - A with its 95% interval and p: paired bootstrap over common items. Holm: corrected for "
    "the rows of the table. McNemar: items right in A alone, in B alone, and p."
)
LEVELS = ("benchmark", "group", "category")
# A page with more items is slow to open. The JSON has all of them.
_MAX_SHOWN = 200


def comparison_cells(row: ComparisonRow) -> list[str]:
    """Return the cells of a row of the table, in the order of `HEADINGS`."""
    name = f"{row.benchmark}: {row.name}" if row.level == "category" else row.name
    if row.level == "group":
        name = f"{name} ({row.unit})"
    elif not row.higher_is_better:
        name = f"{name} (lower is better)"
    mcnemar = ""
    if row.mcnemar_p_value is not None:
        mcnemar = f"{row.num_only_a} / {row.num_only_b}, p {format_p_value(row.mcnemar_p_value)}"
    interval = "-"
    if row.ci_low is not None and row.ci_high is not None:
        interval = f"{row.ci_low:+.3f} to {row.ci_high:+.3f}"
    return [
        name,
        str(row.num_items),
        f"{row.a:.3f}",
        f"{row.b:.3f}",
        f"{row.difference:+.3f}",
        interval,
        format_p_value(row.p_value),
        format_p_value(row.p_holm),
        mcnemar,
    ]


def write_comparison_page(path: Path, comparison: ModelComparison, *, overwrite: bool) -> None:
    """Write the tables and the differing items side by side, as one self-contained HTML file.

    Raises:
        InputError: the file exists and `overwrite` is false, or it cannot be written.
    """
    levels = [
        (level, [list(zip(HEADINGS, comparison_cells(row), strict=True)) for row in rows])
        for level in LEVELS
        if (rows := [row for row in comparison.rows if row.level == level])
    ]
    content = {
        "comparison": comparison,
        "headings": HEADINGS,
        "levels": levels,
        "legend": LEGEND,
        "shown": comparison.differing[:_MAX_SHOWN],
    }
    page = templates().get_template("comparison.html.j2").render(content)
    write_output(path, page, overwrite=overwrite)
