"""The answer that scores deserve: the best weight, none, or what to run to know it.

A claim of an effect needs the F test of a flat curve, corrected (Holm) for the groups, the overall
curve and the cells that are looked at, so that a study in which nothing matters makes any claim in
at most 5% of cases. "No effect" needs more than a test that found nothing: every difference between
tried weights must lie, with its whole 95% interval, within a margin.
Source: Holm 1979; Schuirmann 1987 (two one-sided tests, here each at 2.5%).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.statistics.best_weight import best_set
from orchestrator.statistics.curves import OVERALL, Cell, Curve, Trials, collect_trials, fit_curves
from orchestrator.statistics.drawn_curves import DrawnCurve, draw_curve
from orchestrator.statistics.gains import corrected_gain
from orchestrator.statistics.next_runs import MAX_CELLS, NextRun, next_runs
from orchestrator.statistics.pareto import FrontPoint, pareto_front
from orchestrator.statistics.table import ScoreRow, check_rows, plw_of
from orchestrator.statistics.wording import (
    best_text,
    end_text,
    few_text,
    notes_on,
    nothing_text,
    open_text,
    rising_text,
    same_text,
    unfitted_text,
    unsure_text,
)

Array = NDArray[np.float64]
Kind = Literal["best", "no effect", "rises", "falls", "cannot say"]

LEVEL = 0.05
MARGIN_POINTS = 1.0
_NUM_PLACES = 21
_TOUCHING = 1e-9
# On the logit scale a hundredth of a point: below it is rounding, not the noise of any seeds.
_LEAST_ERROR = 1e-4


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the scores of one group (in one cell, or the mean of all) say about PLW.

    `best_plw` is None where no curve could be fitted. `pieces` (the PLWs not ruled out as the best,
    95%) are empty, and numbers None, also where there is too little beside the curve.
    `has_effect`: whether the corrected `adjusted_p_value` is under 0.05. `difference`,
    `difference_high`: between the best and the worst tried place of the curve, in points, fitted
    and at most (95%). `gain`: of the best PLW over `reference_plw` (0 where it was tried), in
    points, corrected for having been chosen, with a 95% interval. `num_seeds`: of the weight that
    has fewest, and of that which has most.
    """

    group: str
    cell: Cell | None
    kind: Kind
    text: str
    has_effect: bool
    num_trials: int
    num_weights: int
    num_seeds: tuple[int, int]
    best_plw: float | None = None
    pieces: tuple[tuple[float, float], ...] = ()
    p_value: float | None = None
    adjusted_p_value: float | None = None
    interaction_p_value: float | None = None
    difference: float | None = None
    difference_high: float | None = None
    reference_plw: float | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None

    @property
    def claims_effect(self) -> bool:
        """Whether it says that PLW matters."""
        return self.has_effect and self.kind != "no effect"

    @property
    def name(self) -> str:
        """Such as `multiple_choice`, or `overall-model-tiny` for that of one cell."""
        if self.cell is None:
            return self.group
        words = "-".join(part for part in self.cell if part)
        return f"{self.group}-{re.sub(r'[^A-Za-z0-9._]+', '-', words).strip('-')}"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Everything that a table of scores says: the leading verdict is the first one.

    `unit` is that of differences and gains.
    """

    unit: str
    verdicts: tuple[Verdict, ...]
    front: tuple[FrontPoint, ...]
    next_runs: tuple[NextRun, ...]
    notes: tuple[str, ...]
    curves: tuple[DrawnCurve, ...]

    @property
    def lead(self) -> Verdict:
        """That of all scores together."""
        return self.verdicts[0]


def answer(
    rows: Sequence[ScoreRow],
    *,
    shares: bool = True,
    higher_is_better: bool = True,
    margin: float = MARGIN_POINTS,
    unit: str | None = None,
) -> Answer:
    """The verdict overall (of several groups), in each group and in each of several cells.

    Args:
        shares: whether scores are shares in [0, 1], told in points of 100; else they are fitted
            as they are and `margin` is in their own `unit`.
        higher_is_better: False for losses.

    Raises:
        InputError: rows that cannot be used, each with its reason.
    """
    rows = _usable(rows, shares, higher_is_better)
    trials = collect_trials(rows, shares=shares)
    curves = _ordered_curves(rows, trials)
    judged = [curve for curve in curves if curve.is_judged]
    unit = unit or ("points" if shares else "units")
    verdicts = _verdicts(judged, rows, trials, margin, unit)
    is_open = verdicts[0].kind == "cannot say"
    may_be_best = best_set(judged[0].fit) if judged else ()
    return Answer(
        unit=unit,
        verdicts=tuple(verdicts),
        front=tuple(pareto_front(trials)) if len(trials.groups) > 1 else (),
        next_runs=tuple(next_runs(_in_largest_cells(rows, trials), may_be_best)) if is_open else (),
        notes=tuple(notes_on(rows, trials, verdicts[0].interaction_p_value)),
        curves=tuple(draw_curve(curve, trials) for curve in curves),
    )


def read_verdicts(
    rows: Sequence[ScoreRow],
    *,
    shares: bool = True,
    higher_is_better: bool = True,
    margin: float = MARGIN_POINTS,
) -> list[Verdict]:
    """The verdicts alone, for which see `answer`."""
    rows = _usable(rows, shares, higher_is_better)
    trials = collect_trials(rows, shares=shares)
    judged = [curve for curve in _ordered_curves(rows, trials) if curve.is_judged]
    return _verdicts(judged, rows, trials, margin, "points" if shares else "units")


def _usable(rows: Sequence[ScoreRow], shares: bool, higher_is_better: bool) -> Sequence[ScoreRow]:
    check_rows(rows, shares=shares)
    if higher_is_better:
        return rows
    return [replace(row, score=1 - row.score if shares else -row.score) for row in rows]


def _in_largest_cells(rows: Sequence[ScoreRow], trials: Trials) -> Trials:
    if len(trials.cells) <= MAX_CELLS:
        return trials
    sizes = np.bincount(trials.cell)
    largest = {trials.cells[each] for each in np.argsort(-sizes, kind="stable")[:MAX_CELLS]}
    kept = [row for row in rows if row.cell in largest]
    return collect_trials(kept, shares=trials.is_share)


def _ordered_curves(rows: Sequence[ScoreRow], trials: Trials) -> list[Curve]:
    """Overall first, then the groups, then single cells."""
    curves = fit_curves(rows, trials)
    return sorted(curves, key=lambda curve: (curve.cell is not None, curve.group != OVERALL))


def _verdicts(
    curves: Sequence[Curve], rows: Sequence[ScoreRow], trials: Trials, margin: float, unit: str
) -> list[Verdict]:
    adjusted = holm([curve.p_value for curve in curves])
    verdicts = [
        _verdict(curve, p_value, rows, trials, margin, unit)
        for curve, p_value in zip(curves, adjusted, strict=True)
    ]
    fitted = {curve.group for curve in curves}
    expected = [*([OVERALL] if len(trials.groups) > 1 else []), *trials.groups]
    verdicts += [_unfitted(group, trials) for group in expected if group not in fitted]
    return sorted(verdicts, key=lambda one: (one.cell is not None, one.group != OVERALL))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given."""
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _verdict(
    curve: Curve,
    adjusted: float,
    rows: Sequence[ScoreRow],
    trials: Trials,
    margin: float,
    unit: str,
) -> Verdict:
    fit = curve.fit
    too_little = _too_little(curve, trials, rows)
    if too_little:
        return _unread(curve.group, curve.cell, trials, too_little, best_plw=plw_of(fit.top))
    pieces = best_set(fit)
    difference, most = _differences(curve, trials)
    kind, text = _say(curve, pieces, adjusted, (difference, most), margin, unit)
    gain = corrected_gain(fit, fit.low)
    values = trials.in_points(curve.group, np.array([gain.value, gain.low, gain.high]))
    return Verdict(
        group=curve.group,
        cell=curve.cell,
        kind=kind,
        text=text,
        has_effect=adjusted < LEVEL,
        **_counts(trials, curve.group, curve.cell),
        best_plw=plw_of(fit.top),
        pieces=tuple((plw_of(start), plw_of(end)) for start, end in pieces),
        p_value=curve.p_value,
        adjusted_p_value=adjusted,
        interaction_p_value=curve.interaction_p_value,
        difference=difference,
        difference_high=most,
        reference_plw=plw_of(fit.low),
        gain=float(values[0]),
        gain_low=float(values[1]),
        gain_high=float(values[2]),
    )


def _too_little(curve: Curve, trials: Trials, rows: Sequence[ScoreRow]) -> str:
    """Why scores say nothing although a curve goes through them; empty where they may."""
    of_group = {row.score for row in rows if curve.group in (row.group, OVERALL)}
    num_trials = int(_present(trials, curve.group, curve.cell).sum())
    if trials.is_share and of_group in ({0.0}, {1.0}):
        return end_text(num_trials, of_group.pop())
    if not curve.knows_noise:
        return few_text(curve.fit.freedom)
    is_flat = max(abs(curve.fit.slope), abs(curve.fit.curvature)) < _LEAST_ERROR
    is_exact = np.sqrt(np.diag(curve.fit.covariance)).max() < _LEAST_ERROR
    if trials.is_share and is_exact and not is_flat:
        return same_text()
    return ""


def _say(
    curve: Curve,
    pieces: Sequence[tuple[float, float]],
    adjusted: float,
    differences: tuple[float, float],
    margin: float,
    unit: str,
) -> tuple[Kind, str]:
    fit = curve.fit
    if differences[1] < margin:
        return "no effect", nothing_text(fit, differences[1], margin, unit)
    if adjusted >= LEVEL:
        return "cannot say", unsure_text(adjusted, differences[1], unit)
    at_low = pieces[0][0] <= fit.low + _TOUCHING
    at_high = pieces[-1][1] >= fit.high - _TOUCHING
    if at_low and at_high:
        return "cannot say", open_text(pieces, adjusted)
    if len(pieces) == 1 and at_high and fit.top >= fit.high - _TOUCHING:
        return "rises", rising_text(fit, pieces, differences[0], unit)
    if len(pieces) == 1 and at_low and fit.top <= fit.low + _TOUCHING:
        return "falls", rising_text(fit, pieces, differences[0], unit)
    return "best", best_text(fit, pieces)


def _differences(curve: Curve, trials: Trials) -> tuple[float, float]:
    """The largest difference between two tried places, in points: fitted, and at most (95%).

    Each pair's limit is its own: all of them must be within a margin for "no effect", so that
    taking many pairs makes the claim harder, never easier.
    """
    fit = curve.fit
    places = np.linspace(fit.low, fit.high, _NUM_PLACES)
    first, second = (each.ravel() for each in np.meshgrid(places, places))
    steps = np.column_stack([second - first, second**2 - first**2])
    rises = steps @ np.array([fit.slope, fit.curvature])
    errors = np.sqrt(np.maximum(np.einsum("ni,ij,nj->n", steps, fit.covariance, steps), 0))
    most = rises + fit.quantile(0.975) * errors
    found = trials.in_points(curve.group, np.array([rises.max(), most.max()]))
    return float(found[0]), float(found[1])


def _unfitted(group: str, trials: Trials) -> Verdict:
    counts = _counts(trials, group, None)
    text = unfitted_text(counts["num_weights"], counts["num_trials"], len(trials.cells))
    return _unread(group, None, trials, text, best_plw=None)


def _unread(
    group: str, cell: Cell | None, trials: Trials, text: str, *, best_plw: float | None
) -> Verdict:
    """That of scores that can be shown, and from which nothing follows."""
    return Verdict(
        group=group,
        cell=cell,
        kind="cannot say",
        text=text,
        has_effect=False,
        **_counts(trials, group, cell),
        best_plw=best_plw,
    )


def _counts(trials: Trials, group: str, cell: Cell | None) -> dict[str, Any]:
    """How many trials, weights and seeds of each have the group's scores."""
    present = _present(trials, group, cell)
    seeds: dict[tuple[int, float], set[str]] = {}
    for number in np.flatnonzero(present):
        seeds.setdefault((trials.cell[number], trials.plw[number]), set()).add(trials.seed[number])
    sizes = [len(found) for found in seeds.values()] or [0]
    return {
        "num_trials": int(present.sum()),
        "num_weights": len({plw for _, plw in seeds}),
        "num_seeds": (min(sizes), max(sizes)),
    }


def _present(trials: Trials, group: str, cell: Cell | None) -> NDArray[np.bool_]:
    """Which trials, in the cell, have all scores that the curve of `group` needs."""
    values = trials.values if group == OVERALL else trials.values[:, [trials.groups.index(group)]]
    in_cell = (
        np.full(len(values), True) if cell is None else trials.cell == trials.cells.index(cell)
    )
    return np.asarray(in_cell & ~np.isnan(values).any(axis=1), dtype=np.bool_)
