"""The verdict on one question about the weights: from estimates to a kind, numbers and words."""

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from orchestrator.statistics import messages
from orchestrator.statistics.confidence_set import Pieces, confidence_set
from orchestrator.statistics.estimates import t_quantile
from orchestrator.statistics.gains import corrected_gain
from orchestrator.statistics.study import Study, lacks_noise
from orchestrator.statistics.table import plw_of
from orchestrator.statistics.trial_points import OVERALL, Cell, Trials
from orchestrator.statistics.weight_analysis import Method, WeightAnalysis
from orchestrator.statistics.weight_effects import MIN_CURVE_DF

Kind = Literal["best", "tied", "rises", "falls", "no effect", "cannot say"]

LEVEL = 0.05
_NUM_PLACES = 21
_TOUCHING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the scores of one group (in one cell, or the mean of all) say about PLW.

    Attributes:
        kind: `tied` where several tried weights share the best.
        method: what located the optimum: a curve that fits, means, or a curve that is assumed.
        has_effect: whether `adjusted_p_value` is under 0.05.
        num_seeds: of the weight that has fewest, and of that which has most.
        best_plw: None where nothing could be fitted; `nearest_plw` the tried weight next to it.
        pieces: PLW intervals that hold the best weight (95%); with means, runs of tried weights.
        tied_plws: the tried weights among the pieces where the verdict rests on means.
        lack_of_fit_p_value: of a quadratic in w_p; None where weights are not repeated.
        difference, difference_high: between the best and the worst weight, estimated and at most
            (95%), in the answer's unit.
        gain: of the best PLW over `reference_plw` (the lowest tried), corrected for having been
            chosen, with a 95% interval.
        is_within_seeds: whether weights are compared within seeds.
    """

    group: str
    cell: Cell | None
    kind: Kind
    text: str
    has_effect: bool
    num_trials: int
    num_weights: int
    num_seeds: tuple[int, int]
    method: Method | None = None
    best_plw: float | None = None
    nearest_plw: float | None = None
    pieces: tuple[tuple[float, float], ...] = ()
    tied_plws: tuple[float, ...] = ()
    p_value: float | None = None
    adjusted_p_value: float | None = None
    lack_of_fit_p_value: float | None = None
    interaction_p_value: float | None = None
    difference: float | None = None
    difference_high: float | None = None
    reference_plw: float | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    is_within_seeds: bool = False

    @property
    def claims_effect(self) -> bool:
        """Whether it says that PLW matters."""
        return self.has_effect and self.kind != "no effect"

    @property
    def names_weight(self) -> bool:
        """Whether it says which weights are best."""
        return self.kind in ("best", "tied", "rises", "falls")

    @property
    def name(self) -> str:
        """Such as `multiple_choice`, or `overall-model-tiny` for that of one cell."""
        if self.cell is None:
            return self.group
        words = "-".join(part for part in self.cell if part)
        return f"{self.group}-{re.sub(r'[^A-Za-z0-9._]+', '-', words).strip('-')}"


def verdict_on(analysis: WeightAnalysis, adjusted: float, study: Study) -> Verdict:
    pieces = confidence_set(analysis)
    difference, most = _differences(analysis)
    most = max(most, analysis.observed_range or 0.0)
    counts = _counts(study.trials, analysis.group, analysis.cell)
    # Repeated weights that were too many to compare one by one.
    is_tested = analysis.means is not None or counts["num_seeds"][1] < 2
    gain = corrected_gain(analysis)
    tried = np.unique(analysis.w_p)
    best = analysis.optimum
    nearest = float(tried[np.abs(tried - best).argmin()])
    found = Verdict(
        group=analysis.group,
        cell=analysis.cell,
        kind=_kind(analysis, pieces, adjusted, is_same=most < study.table.margin and is_tested),
        text="",
        has_effect=adjusted < LEVEL,
        **counts,
        method=analysis.method,
        best_plw=_plw(best, study.trials),
        nearest_plw=_plw(nearest, study.trials),
        pieces=tuple((_plw(low, study.trials), _plw(high, study.trials)) for low, high in pieces),
        tied_plws=_tried_in(pieces, analysis, study.trials),
        p_value=analysis.p_value,
        adjusted_p_value=adjusted,
        lack_of_fit_p_value=analysis.lack_of_fit,
        interaction_p_value=analysis.interaction_p_value,
        difference=difference,
        difference_high=most,
        reference_plw=_plw(gain.reference_w_p, study.trials),
        gain=gain.value,
        gain_low=gain.low,
        gain_high=gain.high,
        is_within_seeds=study.effects[analysis.group].is_blocked,
    )
    text = messages.verdict_text(
        found, study.table.margin, study.table.shown_unit, (analysis.low, analysis.high)
    )
    return replace(found, text=text)


def _plw(w_p: float, trials: Trials) -> float:
    """The PLW of a w_p: exactly that of a trial where one has it."""
    index = int(np.abs(trials.w_p - w_p).argmin())
    is_tried = abs(trials.w_p[index] - w_p) < _TOUCHING
    return float(trials.plw[index]) if is_tried else plw_of(w_p)


def _tried_in(pieces: Pieces, analysis: WeightAnalysis, trials: Trials) -> tuple[float, ...]:
    """The tried weights in the pieces, where tried weights are all that is compared."""
    if analysis.method != "means":
        return ()
    return tuple(
        _plw(at, trials)
        for at in analysis.w_p
        if any(low - _TOUCHING <= at <= high + _TOUCHING for low, high in pieces)
    )


def too_little(analysis: WeightAnalysis, study: Study) -> str:
    """Why scores say nothing although something could be fitted; empty where they may."""
    group, trials = analysis.group, study.trials
    if trials.is_share:
        scores = {row.score for row in study.table.rows if group in (row.group, OVERALL)}
        if scores in ({0.0}, {1.0}):
            return messages.floor_text(analysis.num_trials, scores.pop())
    effects = study.effects[group]
    if analysis.means is None and effects.total_df < MIN_CURVE_DF - 0.5:
        return messages.few_text(effects.total_df)
    if effects.noise is None:
        return messages.few_text(0.0)
    return messages.same_text() if lacks_noise(study, group) else ""


def _kind(analysis: WeightAnalysis, pieces: Pieces, adjusted: float, *, is_same: bool) -> Kind:
    if is_same:
        return "no effect"
    at_low = pieces[0][0] <= analysis.w_p[0] + _TOUCHING
    at_high = pieces[-1][1] >= analysis.w_p[-1] - _TOUCHING
    if adjusted >= LEVEL or (at_low and at_high):
        return "cannot say"
    is_single = len(pieces) == 1
    best = analysis.optimum
    if analysis.method == "means" and sum(high > low for low, high in pieces) + len(pieces) > 1:
        return "tied"
    if is_single and at_high and best >= analysis.w_p[-1] - _TOUCHING:
        return "rises"
    if is_single and at_low and best <= analysis.w_p[0] + _TOUCHING:
        return "falls"
    return "best"


def _differences(analysis: WeightAnalysis) -> tuple[float, float]:
    """The largest difference between two tried places: estimated, and at most (95%).

    Each pair's limit is its own: all of them must be within a margin for "no effect", so that
    taking many pairs makes the claim harder, never easier.
    """
    if analysis.method == "means":
        estimates, size = analysis.pairs, len(analysis.w_p)
        first, second = np.triu_indices(size, 1)
        rows = np.eye(size)[second] - np.eye(size)[first]
    else:
        estimates = analysis.curve
        places = np.linspace(analysis.low, analysis.high, _NUM_PLACES)
        first, second = np.triu_indices(_NUM_PLACES, 1)
        start, end = places[first], places[second]
        rows = np.column_stack([end - start, end**2 - start**2])
    assert estimates is not None
    values, errors, df = estimates.contrasts(rows)
    most = np.abs(values) + t_quantile(df, 0.975) * errors
    return float(np.abs(values).max()), float(most.max())


def unfitted(group: str, study: Study) -> Verdict:
    counts = _counts(study.trials, group, None)
    text = messages.unfitted_text(
        counts["num_weights"], counts["num_trials"], len(study.trials.cells)
    )
    return Verdict(group=group, cell=None, kind="cannot say", text=text, has_effect=False, **counts)


def undecided(analysis: WeightAnalysis, study: Study, text: str) -> Verdict:
    """The verdict on scores that can be shown, and from which nothing follows."""
    return Verdict(
        group=analysis.group,
        cell=analysis.cell,
        kind="cannot say",
        text=text,
        has_effect=False,
        **_counts(study.trials, analysis.group, analysis.cell),
        best_plw=_plw(analysis.optimum, study.trials),
    )


def _counts(trials: Trials, group: str, cell: Cell | None) -> dict[str, Any]:
    """How many trials, weights and seeds of each have the group's scores."""
    present = ~np.isnan(trials.group_values(group))
    if cell is not None:
        present &= trials.cell == trials.cells.index(cell)
    seeds: dict[tuple[int, float], set[str]] = {}
    for number in np.flatnonzero(present):
        seeds.setdefault((trials.cell[number], trials.plw[number]), set()).add(trials.seed[number])
    sizes = [len(found) for found in seeds.values()] or [0]
    return {
        "num_trials": int(present.sum()),
        "num_weights": len({plw for _, plw in seeds}),
        "num_seeds": (min(sizes), max(sizes)),
    }
