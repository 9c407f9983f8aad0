"""Draw conclusions about the prompt loss weight: the best weight, no effect, or undecided.

A claim of an effect requires a significant test of differences between weights, with Holm's
correction over all verdicts of a report, including that on the held-out loss. A study without any
effect then makes a claim in at most 5% of cases. "No effect" requires more than a non-significant
test: the 95% intervals of all differences between tried weights must be within a margin.

Source: Holm 1979; Schuirmann 1987 (two one-sided tests, here each at 2.5%).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.statistics import messages
from orchestrator.statistics.confidence_bands import CurveBand, curve_band
from orchestrator.statistics.follow_up_design import FollowUp, NextRun, design_follow_up
from orchestrator.statistics.holm import holm
from orchestrator.statistics.learning_rates import BestRate
from orchestrator.statistics.outliers import Outlier, find_outliers
from orchestrator.statistics.pareto import FrontPoint, pareto_front
from orchestrator.statistics.study import MARGIN_POINTS, Study, Table, fit_study, has_zero_noise
from orchestrator.statistics.table import ScoreRow
from orchestrator.statistics.trial_points import Cell
from orchestrator.statistics.verdict import Verdict
from orchestrator.statistics.verdict_decision import (
    inconclusive_verdict,
    insufficiency,
    make_verdict,
    unfitted_verdict,
)
from orchestrator.statistics.weight_analysis import WeightAnalysis

Array = NDArray[np.float64]

_MAX_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class SeedLevel:
    """Effect of a seed on all weights of a group, in the unit of the conclusions.

    Verdicts compare weights within seeds, so they do not depend on this effect.
    """

    group: str
    cell: Cell
    seed: str
    level: float


@dataclass(frozen=True, kw_only=True)
class Conclusions:
    """All results for a table of scores; the first verdict is the leading one.

    `unit` is the unit of differences and gains. `without_outliers` contains the verdicts without
    the trials in `outliers`; it is empty if there are no outliers. `best_rates`: the learning rate
    of each cell at which weights are compared; empty if rates are not crossed with weights.
    """

    unit: str
    verdicts: tuple[Verdict, ...]
    front: tuple[FrontPoint, ...]
    next_runs: tuple[NextRun, ...]
    follow_up: FollowUp | None
    notes: tuple[str, ...]
    curves: tuple[CurveBand, ...]
    outliers: tuple[Outlier, ...]
    without_outliers: tuple[Verdict, ...]
    seed_levels: tuple[SeedLevel, ...]
    best_rates: tuple[BestRate, ...] = ()

    @property
    def lead(self) -> Verdict:
        """The verdict on all scores together."""
        return self.verdicts[0]


def draw_conclusions(
    rows: Sequence[ScoreRow],
    *,
    shares: bool = True,
    higher_is_better: bool = True,
    margin: float = MARGIN_POINTS,
    unit: str | None = None,
) -> Conclusions:
    """Return the verdict overall (if there are several groups), per group and per cell.

    Args:
        shares: whether scores are shares in [0, 1], which are reported in points from 0 to 100. If
            False, scores are fitted unchanged and `margin` is in their `unit`.
        higher_is_better: False for losses.

    Raises:
        InputError: rows cannot be used; lists each with the reason.
    """
    table = Table(
        rows=rows, shares=shares, higher_is_better=higher_is_better, margin=margin, unit=unit
    )
    return draw_joint_conclusions([table])[0]


def draw_joint_conclusions(tables: Sequence[Table]) -> list[Conclusions]:
    """Return the conclusions of each table, with one Holm correction over all verdicts.

    Raises:
        InputError: rows cannot be used; lists each with the reason.
    """
    oriented = [table.oriented() for table in tables]
    studies = [fit_study(table) for table in oriented]
    verdicts = _verdicts(studies)
    outliers, kept = _without_outliers(studies)
    for table, found in zip(tables, outliers, strict=True):
        if not table.higher_is_better:
            # Convert to the scale of the scores; negated scores were fitted.
            found[:] = [replace(one, deviation=-one.deviation) for one in found]
    verdicts_without: list[list[Verdict]] = [[] for _ in tables]
    if any(outliers):
        verdicts_without = _verdicts(kept)
    return [
        _conclusions(study, own, found, alone)
        for study, own, found, alone in zip(
            studies, verdicts, outliers, verdicts_without, strict=True
        )
    ]


def lead_verdict(table: Table) -> Verdict:
    """Return the leading verdict of one table; much faster than all conclusions.

    Raises:
        InputError: rows cannot be used; lists each with the reason.
    """
    return _verdicts([fit_study(table.oriented())])[0][0]


def _conclusions(
    study: Study,
    verdicts: Sequence[Verdict],
    outliers: Sequence[Outlier],
    verdicts_without: list[Verdict],
) -> Conclusions:
    table, trials = study.table, study.trials
    lead = verdicts[0]
    design = None
    if lead.kind == "cannot say":
        # If trials are identical, there is no noise estimate to simulate with.
        is_known = lead.group in study.effects and not has_zero_noise(study, lead.group)
        first = study.analyses[0] if study.analyses and is_known else None
        design = design_follow_up(trials, study.effects.get(lead.group), first)
    lead_effects = study.effects.get(lead.group)
    method = lead.method if lead.method is not None else "assumed curve"
    return Conclusions(
        unit=table.shown_unit,
        verdicts=tuple(verdicts),
        front=tuple(pareto_front(trials, method)) if len(trials.groups) > 1 else (),
        next_runs=design.runs if design is not None else (),
        follow_up=design,
        notes=(
            *messages.rate_notes(
                table.rows,
                trials,
                study.best_rates,
                study.rate_interaction_p_value,
                has_own_rates=lead_effects is not None and lead_effects.has_own_rates,
            ),
            *messages.data_notes(table.rows, trials, lead.interaction_p_value),
        ),
        curves=tuple(_curves(study)),
        outliers=tuple(outliers),
        without_outliers=tuple(verdicts_without),
        seed_levels=tuple(level for part in study.parts for level in _seed_levels(part)),
        best_rates=study.best_rates,
    )


def _curves(study: Study) -> Iterator[CurveBand]:
    for part in study.parts:
        for analysis in part.analyses:
            if analysis.estimates is None:
                continue
            curve = curve_band(analysis, part.trials)
            is_of_rate = curve.cell is None and len(study.best_rates) == 1
            yield replace(curve, cell=study.best_rates[0].cell) if is_of_rate else curve


def _without_outliers(studies: Sequence[Study]) -> tuple[list[list[Outlier]], list[Study]]:
    """Return the outliers of each study, and the studies without them.

    The search is repeated on the remaining trials, up to `_MAX_ROUNDS` times, because one outlier
    may hide another.
    """
    found: list[list[Outlier]] = [[] for _ in studies]
    kept = list(studies)
    for _ in range(_MAX_ROUNDS):
        new = [_outliers(study) for study in kept]
        if not any(new):
            break
        for index, (study, outliers) in enumerate(zip(kept, new, strict=True)):
            found[index] += outliers
            keys = {one.key for one in outliers}
            kept[index] = study.with_rows(
                [row for row in study.table.rows if row.trial_key not in keys]
            )
    return found, kept


def _outliers(study: Study) -> list[Outlier]:
    """Return each outlying trial once, in the group where it deviates most."""
    found: dict[tuple[str, ...], Outlier] = {}
    for group, effects in study.effects.items():
        for one in find_outliers(effects, study.trials, group):
            if one.key not in found or abs(one.deviation) > abs(found[one.key].deviation):
                found[one.key] = one
    return list(found.values())


def _verdicts(studies: Sequence[Study]) -> list[list[Verdict]]:
    """Return the verdicts of each study, with p-values corrected over all of them."""
    testable: list[tuple[int, Study, WeightAnalysis]] = []
    found: list[list[Verdict]] = [[] for _ in studies]
    for index, study in enumerate(studies):
        questions = [(part, one) for part in study.parts for one in part.analyses]
        for part, analysis in questions:
            if not analysis.has_verdict:
                continue
            reason = insufficiency(analysis, part)
            if reason:
                found[index].append(inconclusive_verdict(analysis, part, reason))
            else:
                testable.append((index, part, analysis))
    adjusted = holm([analysis.p_value for _, _, analysis in testable])
    for (index, part, analysis), p_value in zip(testable, adjusted, strict=True):
        found[index].append(make_verdict(analysis, p_value, part))
    for index, study in enumerate(studies):
        fitted = {one.group for one in study.analyses}
        found[index] += [
            unfitted_verdict(group, study)
            for group in study.trials.verdict_groups
            if group not in fitted
        ]
        found[index] += [
            unfitted_verdict(
                study.trials.verdict_groups[0],
                part,
                part.trials.cells[0],
                has_groups=set(part.trials.groups) == set(study.trials.groups),
            )
            for part in study.others
            if not part.analyses
        ]
        found[index] = _in_order(_with_rates(found[index], study), study)
    return found


def _with_rates(verdicts: Sequence[Verdict], study: Study) -> list[Verdict]:
    """Return the verdicts with the learning rate of their trials, if rates are crossed."""
    if not study.best_rates:
        return list(verdicts)
    rates: dict[Cell | None, set[float | None]] = {
        None: {best.learning_rate for best in study.best_rates}
    }
    for part in study.parts:
        for row in part.table.rows:
            rates.setdefault(row.cell, set()).add(row.learning_rate)
    return [
        replace(one, learning_rate=next(iter(rates[one.cell])))
        if len(rates[one.cell]) == 1
        else one
        for one in verdicts
    ]


def _in_order(verdicts: Sequence[Verdict], study: Study) -> list[Verdict]:
    """Sort verdicts: overall first, then groups, then single cells and other learning rates."""
    groups = study.trials.verdict_groups
    cells = [None, *(cell for part in study.parts for cell in part.trials.cells)]
    return sorted(verdicts, key=lambda one: (cells.index(one.cell), groups.index(one.group)))


def _seed_levels(study: Study) -> list[SeedLevel]:
    return [
        SeedLevel(group=group, cell=study.trials.cells[cell], seed=seed, level=level)
        for group, effects in study.effects.items()
        if effects.is_blocked
        for cell, seed, level in effects.seed_levels
    ]
