"""Build the tables and alternative text of a map of prompt and completion weights."""

from typing import Any

from orchestrator.analysis.findings import WeightMap
from orchestrator.analysis.weight_sentences import pair_text
from orchestrator.report.tables import difference_text
from orchestrator.statistics.messages import capitalize, format_number, format_p_value
from orchestrator.statistics.weight_grid import GridCell, GridTest


def f_test_rows(found: WeightMap) -> dict[str, Any] | None:
    """Return a row for each F test; None if the noise is not measured."""
    if found.grid.noise_sd is None:
        return None
    return {
        "columns": ["F test", "F", "Degrees of freedom", "p", "p, Holm"],
        "rows": [_test_row(test) for test in found.grid.tests],
    }


def _test_row(test: GridTest) -> list[str]:
    name = capitalize(test.name)
    if test.f is None:
        return [name, f"not tested: {test.reason}", "-", "-", "-"]
    df = f"{test.freedom}, {test.freedom_noise}"
    p_values = [format_p_value(p_value) for p_value in (test.p_value, test.adjusted_p_value)]
    return [name, f"{test.f:.3g}", df, *p_values]


def pair_rows(found: WeightMap, most: int) -> dict[str, Any]:
    """Return rows for at most `most` pairs of weights, best first."""
    sign = 1 if found.higher_is_better else -1
    cells = sorted(found.grid.cells, key=lambda cell: -sign * cell.mean)
    reference = pair_text(found.grid.reference)
    return {
        "columns": [
            "Prompt weight",
            "Completion weight",
            "Ratio",
            "Trials",
            f"Mean ({found.unit})",
            f"Difference from {reference} (95%)",
            "May be best",
        ],
        "rows": [_pair_row(found, cell) for cell in cells[:most]],
        "num_left_out": max(0, len(cells) - most),
    }


def _pair_row(found: WeightMap, cell: GridCell) -> list[str]:
    return [
        f"{cell.prompt_weight:g}",
        f"{cell.completion_weight:g}",
        "prompt only" if cell.ratio is None else f"{cell.ratio:.3g}",
        str(cell.num_trials),
        format_number(cell.mean, found.unit),
        _difference(found, cell),
        _place(found, cell),
    ]


def _difference(found: WeightMap, cell: GridCell) -> str:
    if cell.pair == found.grid.reference:
        return "reference"
    return difference_text(cell.difference, cell.difference_low, cell.difference_high, found.unit)


def _place(found: WeightMap, cell: GridCell) -> str:
    if cell.may_be_best is None:
        return "-"
    if cell.pair == found.grid.best:
        return "best mean"
    return "yes" if cell.may_be_best else "no"


def map_alt_text(found: WeightMap) -> str:
    """Return the map's values as text."""
    grid = found.grid
    cells = "; ".join(
        f"{pair_text(cell.pair)}: {format_number(cell.difference, found.unit, signed=True)}"
        for cell in grid.cells
    )
    return (
        f"{found.scores} over prompt weight and completion weight, in {found.unit} relative to "
        f"{pair_text(grid.reference)}. {cells}."
    )
