"""A table of scores, its trials, and what was fitted to them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.statistics.table import ScoreRow, check_rows
from orchestrator.statistics.trial_points import OVERALL, Trials, collect_trials
from orchestrator.statistics.weight_analysis import WeightAnalysis, analyse_weights
from orchestrator.statistics.weight_effects import Effects, fit_effects
from trainers.foundation.errors import InputError, Problem

MARGIN_POINTS = 1.0
# Noise below this is rounding: trials agree to the last digit. In points, or in relation to losses.
_LEAST_SD = 1e-6


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


@dataclass(frozen=True)
class Study:
    """A table with its trials, and the effects and analyses by group."""

    table: Table
    trials: Trials
    effects: dict[str, Effects]
    analyses: list[WeightAnalysis]


def study_of(table: Table) -> Study:
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
    return Study(table, trials, effects, analyses)


def lacks_noise(study: Study, group: str) -> bool:
    """Whether a fitted group's trials agree to the last digit, apart from its effects."""
    noise, trials = study.effects[group].noise, study.trials
    level = 1.0 if trials.is_share else float(np.nanmax(np.abs(trials.group_values(group))))
    return noise is not None and noise.pooled**0.5 <= _LEAST_SD * max(level, 1e-300)
