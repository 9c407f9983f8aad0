"""Detect trials that differ from the others of their weight by more than noise explains.

Source: Cook & Weisberg 1982, externally studentised residuals, with Bonferroni's correction over
the trials of a group. With a common variance, trials of a noisy weight would look like outliers, so
an outlier must also be far from the other trials of its weight.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from orchestrator.statistics.trial_points import Trials
from orchestrator.statistics.weight_effects import Effects

LEVEL = 0.01
# Level of the test against the few other trials of the same weight.
_WITHIN_WEIGHT_LEVEL = 0.1
_MIN_DF = 2
_MIN_DF_SHARE = 1e-6
# Standard errors below this share of a deviation are rounding errors: the other trials are
# identical.
_MIN_RELATIVE_ERROR = 1e-7


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """A trial that deviates from the other trials of a group.

    Attributes:
        trial: name of the trial; empty if the table names no trials.
        deviation: value minus the prediction from the other trials, in the unit of the conclusions.
        p_value: probability of such a deviation by noise alone, corrected for the number of trials.
    """

    group: str
    cell: tuple[str, str, str]
    trial: str
    plw: float
    seed: str
    deviation: float
    p_value: float
    key: tuple[str, ...]


def find_outliers(effects: Effects, trials: Trials, group: str) -> list[Outlier]:
    """Return the outliers of one group, the largest deviation first.

    The result is empty if too few residual degrees of freedom are left. It is also empty if all
    other trials are identical, because the noise is then unknown.
    """
    share, residual, df = effects.share, effects.residual, effects.total_df - 1
    if df < _MIN_DF:
        return []
    is_tested = share > _MIN_DF_SHARE
    deviation = np.divide(residual, share, out=np.zeros_like(residual), where=is_tested)
    variance = np.maximum(float(residual @ residual) - residual * deviation, 0.0) / df
    error = np.sqrt(np.divide(variance, share, out=np.ones_like(variance), where=is_tested))
    is_tested &= error > _MIN_RELATIVE_ERROR * np.abs(deviation)
    ratio = np.divide(np.abs(deviation), error, out=np.zeros_like(error), where=is_tested)
    p_values = np.minimum(2 * special.stdtr(df, -ratio) * len(share), 1.0)
    found = [
        _outlier(trials, group, int(effects.present[each]), deviation[each], p_values[each])
        for each in np.flatnonzero(is_tested & (p_values < LEVEL))
        if _is_outlier_within_weight(effects, int(each))
    ]
    return sorted(found, key=lambda one: -abs(one.deviation))


def _is_outlier_within_weight(effects: Effects, index: int) -> bool:
    """Return whether a trial is also far from the others of its weight, which may be noisy.

    The test is a t test of one trial against the rest, at a liberal level. The result is True with
    fewer than two others.
    """
    own = effects.trial_setting == effects.trial_setting[index]
    own[index] = False
    others = effects.residual[own]
    if len(others) < 2:
        return True
    error = float(others.std(ddof=1)) * (1 + 1 / len(others)) ** 0.5
    distance = abs(float(effects.residual[index] - others.mean()))
    if error <= _MIN_RELATIVE_ERROR * distance:
        return True
    return bool(2 * special.stdtr(len(others) - 1, -distance / error) < _WITHIN_WEIGHT_LEVEL)


def _outlier(trials: Trials, group: str, index: int, deviation: float, p_value: float) -> Outlier:
    key = trials.keys[index]
    return Outlier(
        group=group,
        cell=trials.cells[trials.cell[index]],
        trial=key[3] if len(key) == len(trials.cells[0]) + 1 else "",
        plw=float(trials.plw[index]),
        seed=trials.seed[index],
        deviation=float(deviation),
        p_value=float(p_value),
        key=key,
    )
