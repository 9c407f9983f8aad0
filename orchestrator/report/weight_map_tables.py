"""The tables beside a map of prompt and completion weight, and the map in words."""

from typing import Any

from orchestrator.analysis.findings import WeightMap
from orchestrator.analysis.weight_sentences import amount_text, pair_text
from orchestrator.statistics.weight_grid import GridCell, GridTest

_SMALL_P = 0.001


def test_rows(found: WeightMap) -> dict[str, Any] | None:
    """A row for each F test; None where noise is not measured."""
    if found.grid.noise_sd is None:
        return None
    return {
        "columns": ["F test", "F", "Degrees of freedom", "p", "p, Holm"],
        "rows": [_test_row(test) for test in found.grid.tests],
    }


def _test_row(test: GridTest) -> list[str]:
    name = f"{test.name[0].upper()}{test.name[1:]}"
    if test.f is None:
        return [name, f"not tested: {test.reason}", "-", "-", "-"]
    freedom = f"{test.freedom}, {test.freedom_noise}"
    return [name, f"{test.f:.3g}", freedom, _p_text(test.p_value), _p_text(test.adjusted_p_value)]


def _p_text(p_value: float | None) -> str:
    if p_value is None:
        return "-"
    return f"< {_SMALL_P:g}" if p_value < _SMALL_P else f"{p_value:.2g}"


def pair_rows(found: WeightMap, most: int) -> dict[str, Any]:
    """A row for each pair of weights, the best first, `most` at most."""
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
            f"From {reference} (95%)",
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
        amount_text(cell.mean, found.unit, signed=False),
        _difference(found, cell),
        _place(found, cell),
    ]


def _difference(found: WeightMap, cell: GridCell) -> str:
    if cell.pair == found.grid.reference:
        return "reference"
    value = amount_text(cell.difference, found.unit)
    if cell.difference_low is None or cell.difference_high is None:
        return f"{value}, no interval"
    low, high = (
        amount_text(end, found.unit) for end in (cell.difference_low, cell.difference_high)
    )
    return f"{value} ({low} to {high})"


def _place(found: WeightMap, cell: GridCell) -> str:
    if cell.may_be_best is None:
        return "-"
    if cell.pair == found.grid.best:
        return "best mean"
    return "yes" if cell.may_be_best else "no"


def map_alt_text(found: WeightMap) -> str:
    """What the map shows, for those who do not see it."""
    grid = found.grid
    cells = "; ".join(
        f"{pair_text(cell.pair)}: {amount_text(cell.difference, found.unit)}" for cell in grid.cells
    )
    return (
        f"{found.scores} over prompt weight and completion weight, in {found.unit} from "
        f"{pair_text(grid.reference)}. {cells}."
    )
