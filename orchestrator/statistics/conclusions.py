"""What scores say about the prompt loss weight: the best one, none, or that it is not known.

A claim of an effect needs a test of the weights making a difference, corrected (Holm) over all
verdicts of a report, the held-out loss included, so that a study in which nothing matters makes any
claim in at most 5% of cases. "No effect" needs more than a test that found nothing: every
difference between tried weights must lie, with its whole 95% interval, within a margin.
Source: Holm 1979; Schuirmann 1987 (two one-sided tests, here each at 2.5%).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

from orchestrator.statistics import messages
from orchestrator.statistics.confidence_bands import DrawnCurve, draw_curve
from orchestrator.statistics.follow_up_design import FollowUp, NextRun, follow_up
from orchestrator.statistics.outliers import Outlier, find_outliers
from orchestrator.statistics.pareto import FrontPoint, pareto_front
from orchestrator.statistics.study import MARGIN_POINTS, Study, Table, lacks_noise, study_of
from orchestrator.statistics.table import ScoreRow
from orchestrator.statistics.trial_points import Cell, Trials
from orchestrator.statistics.verdict import Verdict, too_little, undecided, unfitted, verdict_on
from orchestrator.statistics.weight_analysis import WeightAnalysis

Array = NDArray[np.float64]

_MAX_ROUNDS = 3


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
    studies = [study_of(table) for table in oriented]
    verdicts = _verdicts(studies)
    outliers, kept = _without_outliers(oriented, studies)
    for table, found in zip(tables, outliers, strict=True):
        if not table.higher_is_better:
            # As scored, not as turned around.
            found[:] = [replace(one, deviation=-one.deviation) for one in found]
    again: list[list[Verdict]] = [[] for _ in tables]
    if any(outliers):
        again = _verdicts([study_of(table) for table in kept])
    return [
        _answer(study, own, found, alone)
        for study, own, found, alone in zip(studies, verdicts, outliers, again, strict=True)
    ]


def lead_verdict(table: Table) -> Verdict:
    """The leading verdict of one table alone, at a fraction of the cost of a whole answer.

    Raises:
        InputError: rows that cannot be used, each with its reason.
    """
    return _verdicts([study_of(table.oriented())])[0][0]


def _answer(
    study: Study, verdicts: Sequence[Verdict], outliers: Sequence[Outlier], again: list[Verdict]
) -> Answer:
    table, trials = study.table, study.trials
    lead = verdicts[0]
    design = None
    if lead.kind == "cannot say":
        # Where trials agree to the last digit there is no noise to simulate with.
        is_known = lead.group in study.effects and not lacks_noise(study, lead.group)
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
    tables: Sequence[Table], studies: Sequence[Study]
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
        current = [study_of(table) for table in kept]
    return found, kept


def _outliers(study: Study) -> list[Outlier]:
    """Each outlying trial once, where it deviates most."""
    found: dict[tuple[str, ...], Outlier] = {}
    for group, effects in study.effects.items():
        for one in find_outliers(effects, study.trials, group):
            if one.key not in found or abs(one.deviation) > abs(found[one.key].deviation):
                found[one.key] = one
    return list(found.values())


def _verdicts(studies: Sequence[Study]) -> list[list[Verdict]]:
    """The verdicts of each study, corrected together."""
    readable: list[tuple[int, WeightAnalysis]] = []
    found: list[list[Verdict]] = [[] for _ in studies]
    for index, study in enumerate(studies):
        for analysis in study.analyses:
            if not analysis.is_judged:
                continue
            reason = too_little(analysis, study)
            if reason:
                found[index].append(undecided(analysis, study, reason))
            else:
                readable.append((index, analysis))
    adjusted = holm([analysis.p_value for _, analysis in readable])
    for (index, analysis), p_value in zip(readable, adjusted, strict=True):
        found[index].append(verdict_on(analysis, p_value, studies[index]))
    for index, study in enumerate(studies):
        fitted = {one.group for one in found[index]}
        found[index] += [
            unfitted(group, study) for group in study.trials.judged_groups if group not in fitted
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


def _seed_levels(study: Study) -> list[SeedLevel]:
    return [
        SeedLevel(group=group, cell=study.trials.cells[cell], seed=seed, level=level)
        for group, effects in study.effects.items()
        if effects.is_blocked
        for cell, seed, level in effects.seed_levels
    ]
