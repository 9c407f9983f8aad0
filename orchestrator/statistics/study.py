"""Fit the effects and analyses of a table of scores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.statistics.learning_rates import (
    BestRate,
    find_best_rates,
    rates_as_conditions,
)
from orchestrator.statistics.table import ScoreRow, check_rows
from orchestrator.statistics.trial_points import OVERALL, Trials, collect_trials
from orchestrator.statistics.weight_analysis import WeightAnalysis, analyse_weights
from orchestrator.statistics.weight_effects import Effects, fit_effects
from trainers.foundation.errors import InputError, Problem

MARGIN_POINTS = 1.0
# Noise below this is a rounding error: trials are identical. In points, or relative to the loss.
_MIN_NOISE_SD = 1e-6


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of scores and how to interpret it; see `conclusions.draw_conclusions`."""

    rows: Sequence[ScoreRow]
    shares: bool = True
    higher_is_better: bool = True
    margin: float = MARGIN_POINTS
    unit: str | None = None

    @property
    def shown_unit(self) -> str:
        return self.unit or ("points" if self.shares else "units")

    def oriented(self) -> "Table":
        """Return the same table, with scores negated if lower is better.

        Raises:
            InputError: rows cannot be used.
        """
        check_rows(self.rows, shares=self.shares)
        groups = {row.group for row in self.rows}
        if OVERALL in groups and len(groups) > 1:
            raise InputError(
                Problem(
                    message=f"group name `{OVERALL}` is reserved for the mean of all groups",
                    fix="remove its rows, or rename the group",
                )
            )
        if self.higher_is_better:
            return self
        rows = [
            replace(row, score=1 - row.score if self.shares else -row.score) for row in self.rows
        ]
        return replace(self, rows=rows, unit=self.shown_unit, higher_is_better=True)


@dataclass(frozen=True)
class Study:
    """A table with its trials, and the effects (by group) and analyses fitted to them.

    If learning rates are crossed with weights, the table has the trials at `best_rates`, and
    `others` are the studies of the other rates of each cell, with analyses of the leading group
    only, and none if they lack a group of the table.
    """

    table: Table
    trials: Trials
    effects: dict[str, Effects]
    analyses: list[WeightAnalysis]
    best_rates: tuple[BestRate, ...] = ()
    others: "tuple[Study, ...]" = ()
    rate_interaction_p_value: float | None = None

    @property
    def parts(self) -> "tuple[Study, ...]":
        """The study, then those of the other learning rates."""
        return (self, *self.others)

    def with_rows(self, rows: Sequence[ScoreRow]) -> "Study":
        """Return the study of fewer rows, at the same learning rates."""
        fitted = _fit(replace(self.table, rows=rows))
        return replace(self, trials=fitted.trials, effects=fitted.effects,
                       analyses=fitted.analyses, table=fitted.table)  # fmt: skip


def fit_study(table: Table) -> Study:
    """Fit the effects and analyses of every group of `table`, at the best learning rates."""
    best = find_best_rates(table.rows, shares=table.shares)
    if not best:
        return _fit(table)
    rows = rates_as_conditions(table.rows)
    chosen = {each.cell for each in best}
    main = _fit(replace(table, rows=[row for row in rows if row.cell in chosen]))
    lead = main.trials.verdict_groups[0]
    rates = {row.cell: row.learning_rate for row in rows if row.cell not in chosen}
    others = []
    for cell in sorted(rates, key=lambda cell: (cell[:2], rates[cell])):
        other = _fit(replace(table, rows=[row for row in rows if row.cell == cell]))
        own = []
        # The mean of other groups is another measure.
        if set(other.trials.groups) == set(main.trials.groups):
            own = [replace(each, cell=cell) for each in other.analyses if each.group == lead]
        others.append(replace(other, analyses=own))
    return replace(
        main,
        best_rates=best,
        others=tuple(others),
        rate_interaction_p_value=_rate_interaction(main, others) if len(best) == 1 else None,
    )


def _rate_interaction(main: Study, others: Sequence[Study]) -> float | None:
    """Return the p-value of the hypothesis that the weights act equally at all learning rates.

    Rates without an analysis are left out, because they may have a single weight.
    """
    parts = [main, *(other for other in others if other.analyses)]
    table = replace(main.table, rows=[row for part in parts for row in part.table.rows])
    group = main.trials.verdict_groups[0]
    trials = collect_trials(table.rows, shares=table.shares)
    effects = fit_effects(trials, group)
    if effects is None or has_zero_noise(Study(table, trials, {group: effects}, []), group):
        return None
    analyses = analyse_weights(effects, trials, group)
    return analyses[0].interaction_p_value if analyses else None


def _fit(table: Table) -> Study:
    trials = collect_trials(table.rows, shares=table.shares)
    effects = {}
    analyses = []
    for group in trials.verdict_groups:
        found = fit_effects(trials, group)
        if found is None:
            continue
        effects[group] = found
        # With several cells, only the leading group has a verdict per cell; the others are only
        # drawn.
        is_lead = group == trials.verdict_groups[0]
        for analysis in analyse_weights(found, trials, group):
            has_verdict = analysis.cell is None or is_lead
            analyses.append(analysis if has_verdict else replace(analysis, has_verdict=False))
    analyses.sort(key=lambda one: (one.cell is not None, one.group != OVERALL))
    return Study(table, trials, effects, analyses)


def has_zero_noise(study: Study, group: str) -> bool:
    """Return whether a fitted group's trials are identical apart from the fitted effects."""
    noise, trials = study.effects[group].noise, study.trials
    level = 1.0 if trials.is_share else float(np.nanmax(np.abs(trials.group_values(group))))
    return noise is not None and noise.pooled**0.5 <= _MIN_NOISE_SD * max(level, 1e-300)
