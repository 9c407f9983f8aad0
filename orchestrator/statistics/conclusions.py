"""What scores say about the prompt loss weight: the best one, none, or that it is not known.

A claim of an effect needs a test of the weights making a difference, corrected (Holm) over all
verdicts of a report, the held-out loss included, so that a study in which nothing matters makes any
claim in at most 5% of cases. "No effect" needs more than a test that found nothing: every
difference between tried weights must lie, with its whole 95% interval, within a margin.
Source: Holm 1979; Schuirmann 1987 (two one-sided tests, here each at 2.5%).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

from orchestrator.statistics import messages
from orchestrator.statistics.confidence_bands import DrawnCurve, draw_curve
from orchestrator.statistics.confidence_set import Pieces, confidence_set
from orchestrator.statistics.estimates import t_quantile
from orchestrator.statistics.follow_up_design import FollowUp, NextRun, follow_up
from orchestrator.statistics.gains import corrected_gain
from orchestrator.statistics.outliers import Outlier, find_outliers
from orchestrator.statistics.pareto import FrontPoint, pareto_front
from orchestrator.statistics.table import ScoreRow, check_rows, plw_of
from orchestrator.statistics.trial_points import OVERALL, Cell, Trials, collect_trials
from orchestrator.statistics.weight_analysis import Method, WeightAnalysis, analyse_weights
from orchestrator.statistics.weight_effects import MIN_CURVE_DF, Effects, fit_effects
from trainers.errors import InputError, Problem

Array = NDArray[np.float64]
Kind = Literal["best", "tied", "rises", "falls", "no effect", "cannot say"]

LEVEL = 0.05
MARGIN_POINTS = 1.0
_NUM_PLACES = 21
_MAX_ROUNDS = 3
_TOUCHING = 1e-9
# Noise below this is rounding: trials agree to the last digit. In points, or in relation to losses.
_LEAST_SD = 1e-6


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


@dataclass(frozen=True, kw_only=True)
class SeedLevel:
    """What a seed does to all weights of a group alike, in the answer's unit; verdicts leave it
    out."""

    group: str
    cell: Cell
    seed: str
    level: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Everything that a table of scores says: the leading verdict is the first one.

    `unit` is that of differences and gains. `without_outliers` are the verdicts without the trials
    in `outliers`; empty where there are none.
    """

    unit: str
    verdicts: tuple[Verdict, ...]
    front: tuple[FrontPoint, ...]
    next_runs: tuple[NextRun, ...]
    follow_up: FollowUp | None
    notes: tuple[str, ...]
    curves: tuple[DrawnCurve, ...]
    outliers: tuple[Outlier, ...]
    without_outliers: tuple[Verdict, ...]
    seed_levels: tuple[SeedLevel, ...]

    @property
    def lead(self) -> Verdict:
        """That of all scores together."""
        return self.verdicts[0]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of scores and how to read it; see `answer`."""

    rows: Sequence[ScoreRow]
    shares: bool = True
    higher_is_better: bool = True
    margin: float = MARGIN_POINTS
    unit: str | None = None

    @property
    def shown_unit(self) -> str:
        return self.unit or ("points" if self.shares else "units")

    def oriented(self) -> "Table":
        """The same table with higher scores being better.

        Raises:
            InputError: rows that cannot be used.
        """
        check_rows(self.rows, shares=self.shares)
        groups = {row.group for row in self.rows}
        if OVERALL in groups and len(groups) > 1:
            raise InputError(
                Problem(
                    message=f"group `{OVERALL}` is that of the mean of all groups",
                    fix="leave its rows out, or give the group another name",
                )
            )
        if self.higher_is_better:
            return self
        rows = [
            replace(row, score=1 - row.score if self.shares else -row.score) for row in self.rows
        ]
        return replace(self, rows=rows, unit=self.shown_unit, higher_is_better=True)


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
        shares: whether scores are shares in [0, 1], reported in points of 100; else they are fitted
            as they are and `margin` is in their own `unit`.
        higher_is_better: False for losses.

    Raises:
        InputError: rows that cannot be used, each with its reason.
    """
    table = Table(
        rows=rows, shares=shares, higher_is_better=higher_is_better, margin=margin, unit=unit
    )
    return answer_all([table])[0]


def answer_all(tables: Sequence[Table]) -> list[Answer]:
    """An answer for each table, with one Holm family over the verdicts of all.

    Raises:
        InputError: rows that cannot be used, each with its reason.
    """
    oriented = [table.oriented() for table in tables]
    studies = [_study(table) for table in oriented]
    verdicts = _verdicts(studies)
    outliers, kept = _without_outliers(oriented, studies)
    for table, found in zip(tables, outliers, strict=True):
        if not table.higher_is_better:
            # As scored, not as turned around.
            found[:] = [replace(one, deviation=-one.deviation) for one in found]
    again: list[list[Verdict]] = [[] for _ in tables]
    if any(outliers):
        again = _verdicts([_study(table) for table in kept])
    return [
        _answer(study, own, found, alone)
        for study, own, found, alone in zip(studies, verdicts, outliers, again, strict=True)
    ]


def lead_verdict(table: Table) -> Verdict:
    """The leading verdict of one table alone, at a fraction of the cost of a whole answer.

    Raises:
        InputError: rows that cannot be used, each with its reason.
    """
    return _verdicts([_study(table.oriented())])[0][0]


@dataclass(frozen=True)
class _Study:
    """A table with its trials, and the effects and analyses by group."""

    table: Table
    trials: Trials
    effects: dict[str, Effects]
    analyses: list[WeightAnalysis]


def _study(table: Table) -> _Study:
    trials = collect_trials(table.rows, shares=table.shares)
    effects = {}
    analyses = []
    for group in trials.judged_groups:
        found = fit_effects(trials, group)
        if found is None:
            continue
        effects[group] = found
        # A group in one of several cells is there to be drawn.
        is_lead = group == trials.judged_groups[0]
        for analysis in analyse_weights(found, trials, group):
            is_judged = analysis.cell is None or is_lead
            analyses.append(analysis if is_judged else replace(analysis, is_judged=False))
    analyses.sort(key=lambda one: (one.cell is not None, one.group != OVERALL))
    return _Study(table, trials, effects, analyses)


def _answer(
    study: _Study, verdicts: Sequence[Verdict], outliers: Sequence[Outlier], again: list[Verdict]
) -> Answer:
    table, trials = study.table, study.trials
    lead = verdicts[0]
    design = None
    if lead.kind == "cannot say":
        # Where trials agree to the last digit there is no noise to simulate with.
        is_known = lead.group in study.effects and not _lacks_noise(study, lead.group)
        first = study.analyses[0] if study.analyses and is_known else None
        design = follow_up(trials, study.effects.get(lead.group), first)
    method = lead.method if lead.method is not None else "assumed curve"
    return Answer(
        unit=table.shown_unit,
        verdicts=tuple(verdicts),
        front=tuple(pareto_front(trials, method)) if len(trials.groups) > 1 else (),
        next_runs=design.runs if design is not None else (),
        follow_up=design,
        notes=tuple(messages.notes_on(table.rows, trials, lead.interaction_p_value)),
        curves=tuple(
            draw_curve(one, trials) for one in study.analyses if one.estimates is not None
        ),
        outliers=tuple(outliers),
        without_outliers=tuple(again),
        seed_levels=tuple(_seed_levels(study)),
    )


def _without_outliers(
    tables: Sequence[Table], studies: Sequence[_Study]
) -> tuple[list[list[Outlier]], list[Table]]:
    """The outliers of each table, and the tables without them.

    One outlier may hide another, so what is left is looked at again, a few times.
    """
    kept = list(tables)
    found: list[list[Outlier]] = [[] for _ in tables]
    current = list(studies)
    for _ in range(_MAX_ROUNDS):
        new = [_outliers(study) for study in current]
        if not any(new):
            break
        for index, outliers in enumerate(new):
            found[index] += outliers
            keys = {one.key for one in outliers}
            rows = [row for row in kept[index].rows if row.trial_key not in keys]
            kept[index] = replace(kept[index], rows=rows)
        current = [_study(table) for table in kept]
    return found, kept


def _outliers(study: _Study) -> list[Outlier]:
    """Each outlying trial once, where it deviates most."""
    found: dict[tuple[str, ...], Outlier] = {}
    for group, effects in study.effects.items():
        for one in find_outliers(effects, study.trials, group):
            if one.key not in found or abs(one.deviation) > abs(found[one.key].deviation):
                found[one.key] = one
    return list(found.values())


def _verdicts(studies: Sequence[_Study]) -> list[list[Verdict]]:
    """The verdicts of each study, corrected together."""
    readable: list[tuple[int, WeightAnalysis]] = []
    found: list[list[Verdict]] = [[] for _ in studies]
    for index, study in enumerate(studies):
        for analysis in study.analyses:
            if not analysis.is_judged:
                continue
            reason = _too_little(analysis, study)
            if reason:
                found[index].append(_undecided(analysis, study, reason))
            else:
                readable.append((index, analysis))
    adjusted = holm([analysis.p_value for _, analysis in readable])
    for (index, analysis), p_value in zip(readable, adjusted, strict=True):
        found[index].append(_verdict(analysis, p_value, studies[index]))
    for index, study in enumerate(studies):
        fitted = {one.group for one in found[index]}
        found[index] += [
            _unfitted(group, study) for group in study.trials.judged_groups if group not in fitted
        ]
        found[index] = _in_order(found[index], study.trials)
    return found


def _in_order(verdicts: Sequence[Verdict], trials: Trials) -> list[Verdict]:
    """Overall first, then the groups, then single cells."""
    groups, cells = trials.judged_groups, [None, *trials.cells]
    return sorted(verdicts, key=lambda one: (cells.index(one.cell), groups.index(one.group)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given."""
    if not p_values:
        return []
    return [float(each) for each in multipletests(list(p_values), method="holm")[1]]


def _verdict(analysis: WeightAnalysis, adjusted: float, study: _Study) -> Verdict:
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


def _too_little(analysis: WeightAnalysis, study: _Study) -> str:
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
    return messages.same_text() if _lacks_noise(study, group) else ""


def _lacks_noise(study: _Study, group: str) -> bool:
    """Whether a fitted group's trials agree to the last digit, apart from its effects."""
    noise, trials = study.effects[group].noise, study.trials
    level = 1.0 if trials.is_share else float(np.nanmax(np.abs(trials.group_values(group))))
    return noise is not None and noise.pooled**0.5 <= _LEAST_SD * max(level, 1e-300)


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


def _unfitted(group: str, study: _Study) -> Verdict:
    counts = _counts(study.trials, group, None)
    text = messages.unfitted_text(
        counts["num_weights"], counts["num_trials"], len(study.trials.cells)
    )
    return Verdict(group=group, cell=None, kind="cannot say", text=text, has_effect=False, **counts)


def _undecided(analysis: WeightAnalysis, study: _Study, text: str) -> Verdict:
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


def _seed_levels(study: _Study) -> list[SeedLevel]:
    return [
        SeedLevel(group=group, cell=study.trials.cells[cell], seed=seed, level=level)
        for group, effects in study.effects.items()
        if effects.is_blocked
        for cell, seed, level in effects.seed_levels
    ]
