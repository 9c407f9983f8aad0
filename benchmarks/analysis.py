"""Error rates of the analysis in simulated studies, measured through `plw report --scores`.

For each cell (a truth and a design) `benchmarks.studies`, which shares no code with the analysis,
simulates N studies. Each is written as a CSV file; the verdicts come from the JSON of
`plw report --scores FILE --json`. Columns, about the `overall` verdict unless stated otherwise:

claims            share of studies that claim an effect; any_claims: in any verdict
named             share that name a weight
coverage          share whose confidence set contains a best weight: of all weights between the
                  lowest and the highest tried one (coverage_continuum), or of the tried ones
                  (coverage_tried)
regret_over_1     share of naming studies whose weight is more than 1 point below the best one
gain_reported     mean reported gain; gain_true: mean true gain of the reported weights
gain_coverage     share of reported gains whose interval contains the true one; gain_missing: number
                  of studies that report no gain
wrong_worse       share that call a weight worse although no tried one is better
wrong_no_effect   share that say "no effect" although tried weights differ by more than 1 point
failed            limits of `benchmarks.cells` that the cell breaks
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.cells import CELLS, CLAIMING, Cell, broken_limits
from benchmarks.program import Options, command_line, log_progress, wide_console
from benchmarks.studies import simulate, write_csv
from benchmarks.truths import Interval, Truth, position

# A best weight this close to the set counts as inside, on the w_p axis from 0 to 1.
TOLERANCE = 1e-3
MAX_REGRET = 1.0
MARGIN = 1.0
KINDS = ("best", "rises", "falls", "tied", "no effect", "cannot say")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One study's report compared with the truth; gains and regret in points.

    Gains and regret are None if no weight or no gain was reported. `error` is the output of a
    failed report.
    """

    kind: str = ""
    any_claim: bool = False
    covers_continuum: bool = False
    covers_tried: bool = False
    regret: float | None = None
    gain: float | None = None
    gain_true: float | None = None
    gain_covered: bool = False
    wrong_worse: bool = False
    wrong_no_effect: bool = False
    error: str = ""


def report_of(scores: Path) -> dict[str, Any]:
    """Return the JSON of `plw report --scores SCORES --json`.

    Raises:
        RuntimeError: the command failed.
    """
    from orchestrator.cli.main import main as plw

    result = CliRunner().invoke(plw, ["report", "--scores", str(scores), "--json"])
    if result.exit_code != 0:
        raise RuntimeError(f"plw report ended with {result.exit_code}: "
                           f"{result.exception!r} {result.output}")  # fmt: skip
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def outcome_of(cell: Cell, number: int) -> Outcome:
    """Simulate study `number` of a cell, run the report and compare it with the truth."""
    study = simulate(cell.truth, cell.design, number)
    with tempfile.TemporaryDirectory(prefix="plw-bench-") as folder:
        scores = Path(folder, "scores.csv")
        write_csv(study.rows, scores)
        try:
            verdicts = report_of(scores)["verdicts"]
        except RuntimeError as error:
            return Outcome(error=str(error))
    return outcome_of_report(verdicts, study.truth)


def outcome_of_report(verdicts: Sequence[Mapping[str, Any]], truth: Truth) -> Outcome:
    """Compare the overall verdict of a report with the truth.

    Raises:
        StopIteration: there is no overall verdict.
    """
    overall = next(one for one in verdicts if one["group"] == "overall" and one["cell"] is None)
    kind, best, gain = overall["kind"], overall["best_plw"], overall["gain"]
    # Without a set, no weight is excluded.
    pieces = [(low, high) for low, high in overall["pieces"] or [(0.0, 1.0)]]
    gain_true = None
    if gain is not None and best is not None:
        gain_true = truth.overall(best) - truth.overall(overall["reference_plw"])
    return Outcome(
        kind=kind,
        any_claim=any(one["kind"] in CLAIMING for one in verdicts),
        covers_continuum=contains_best(pieces, truth.best_continuum),
        covers_tried=contains_best(pieces, [(plw, plw) for plw in truth.best_tried]),
        regret=None if best is None else truth.best_value - truth.overall(best),
        gain=None if gain_true is None else gain,
        gain_true=gain_true,
        gain_covered=gain_true is not None
        and overall["gain_low"] <= gain_true <= overall["gain_high"],
        wrong_worse=not set(truth.best_tried).isdisjoint(overall["worse_plws"]),
        wrong_no_effect=kind == "no effect" and truth.span > MARGIN,
    )


def contains_best(pieces: Sequence[Interval], best: Sequence[Interval]) -> bool:
    """Return whether the set (PLW intervals) contains a best weight, up to `TOLERANCE`."""
    return any(
        position(low) - TOLERANCE <= position(end) and position(start) <= position(high) + TOLERANCE
        for low, high in pieces
        for start, end in best
    )


def row_of(cell: Cell, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the row of a cell; shares and means over no studies are None."""
    read = [one for one in outcomes if not one.error]
    named = [one for one in read if one.kind in CLAIMING and one.regret is not None]
    gains = [one for one in read if one.gain is not None]
    row: dict[str, Any] = {
        "truth": cell.truth,
        "design": cell.design.name,
        "studies": len(outcomes),
        "claims": _share([one.kind in CLAIMING for one in read]),
        "any_claims": _share([one.any_claim for one in read]),
        "named": len(named) / len(outcomes),
        "coverage": _share([one.covers_continuum or one.covers_tried for one in read]),
        "coverage_continuum": _share([one.covers_continuum for one in read]),
        "coverage_tried": _share([one.covers_tried for one in read]),
        "regret_over_1": _share([(one.regret or 0) > MAX_REGRET for one in named]),
        "gain_reported": _share([one.gain or 0 for one in gains]),
        "gain_true": _share([one.gain_true or 0 for one in gains]),
        "gain_coverage": _share([one.gain_covered for one in gains]),
        "gain_missing": len(read) - len(gains),
        "wrong_worse": _share([one.wrong_worse for one in read]),
        "wrong_no_effect": _share([one.wrong_no_effect for one in read]),
        "kinds": dict(Counter(one.kind for one in read)),
        "errors": len(outcomes) - len(read),
    }
    return {**row, "failed": broken_limits(cell, row)}


def _share(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def measure(cells: Sequence[Cell], num_studies: int, num_jobs: int) -> list[dict[str, Any]]:
    """Return a row for each cell, from `num_studies` studies each, in `num_jobs` processes."""
    work = [(cell, number) for cell in cells for number in range(num_studies)]
    rows = []
    outcomes = _outcomes(work, num_jobs)
    for each, cell in enumerate(cells, start=1):
        of_cell = [next(outcomes) for _ in range(num_studies)]
        errors = [one.error for one in of_cell if one.error]
        if errors:
            log_progress(f"{len(errors)} reports failed, the first with: {errors[0]}")
        rows.append(row_of(cell, of_cell))
        failed = ", ".join(rows[-1]["failed"]) or "nothing"
        log_progress(f"{each}/{len(cells)} {cell.truth}, {cell.design.name}: failed {failed}")
    return rows


def _outcomes(work: Sequence[tuple[Cell, int]], num_jobs: int) -> Iterator[Outcome]:
    if num_jobs == 1:
        yield from (outcome_of(*one) for one in work)
        return
    # Spawned, because a forked process with BLAS threads may hang.
    with multiprocessing.get_context("spawn").Pool(num_jobs) as pool:
        yield from pool.imap(_outcome_of_pair, work, chunksize=5)


def _outcome_of_pair(one: tuple[Cell, int]) -> Outcome:
    return outcome_of(*one)


SHOWN = {
    "claims": "{:.1%}",
    "any_claims": "{:.1%}",
    "named": "{:.1%}",
    "coverage": "{:.1%}",
    "regret_over_1": "{:.1%}",
    "gain_reported": "{:+.2f}",
    "gain_true": "{:+.2f}",
    "gain_coverage": "{:.1%}",
    "gain_missing": "{}",
    "wrong_worse": "{:.1%}",
    "wrong_no_effect": "{:.1%}",
}


def show(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the rows as a table."""
    table = Table(title=f"{rows[0]['studies']} studies per cell", title_justify="left",
                  box=box.SIMPLE_HEAD, pad_edge=False)  # fmt: skip
    for name in ("truth", "design"):
        table.add_column(name)
    for name in SHOWN:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_column("kinds")
    table.add_column("failed")
    for row in rows:
        values = ["-" if row[name] is None else text.format(row[name])
                  for name, text in SHOWN.items()]  # fmt: skip
        kinds = ", ".join(f"{row['kinds'][kind]} {kind}" for kind in KINDS if kind in row["kinds"])
        table.add_row(row["truth"], row["design"], *values, kinds, ", ".join(row["failed"]))
    console.print(table)
    console.print(f"{sum(not row['failed'] for row in rows)} of {len(rows)} cells hold all limits")


def parser() -> argparse.ArgumentParser:
    """Return the command-line parser."""
    options: Options = {
        "--studies": (int, 200, "studies of each cell"),
        "--jobs": (int, 2, "processes"),
        "--truths": (str, "", "names of truths, separated by commas; all if empty"),
    }
    return command_line("benchmarks.analysis", __doc__, options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print the results, and return the exit code."""
    options = parser().parse_args(arguments)
    known = {cell.truth for cell in CELLS}
    wanted = set(filter(None, options.truths.split(","))) or known
    if wanted - known:
        print(f"--truths must be among {', '.join(sorted(known))}, got "
              f"{', '.join(sorted(wanted - known))}", file=sys.stderr)  # fmt: skip
        return 2
    if min(options.studies, options.jobs) < 1:
        print("--studies and --jobs must be at least 1", file=sys.stderr)
        return 2
    began = time.monotonic()
    cells = [cell for cell in CELLS if cell.truth in wanted]
    rows = measure(cells, options.studies, options.jobs)
    log_progress(f"{len(cells)} cells in {time.monotonic() - began:.0f} s")
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        show(rows, wide_console(220))
    return 0


if __name__ == "__main__":
    sys.exit(main())
