"""Trials that lie farther from the others of their weight than noise explains.

Source: Cook & Weisberg 1982, externally studentised residuals, with Bonferroni's correction over
the trials of a group. Their common variance would make outliers of the trials of a noisy weight, so
an outlier must also be far from the others of its own weight.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from orchestrator.statistics.trial_points import Trials
from orchestrator.statistics.weight_effects import Effects

LEVEL = 0.01
# Against the other trials of its own weight, of which there are few.
_OWN_LEVEL = 0.1
_MIN_DF = 2
_LEAST_SHARE = 1e-6
# Below this share of a deviation the others' spread is rounding: they agree to the last digit.
_LEAST_ERROR = 1e-7


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """A trial that stands out in a group.

    Attributes:
        trial: the trial's name; its seed where the table names no trials.
        deviation: its value less what the other trials predict for it, in the answer's unit.
        p_value: of a deviation as large by noise alone, corrected for the number of trials.
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
    """The outliers of one group, the farthest first.

    None where too few trials are left over, or where all others agree to the last digit, so that
    the noise is not known.
    """
    share, residual, df = effects.share, effects.residual, effects.total_df - 1
    if df < _MIN_DF:
        return []
    is_tested = share > _LEAST_SHARE
    deviation = np.divide(residual, share, out=np.zeros_like(residual), where=is_tested)
    left = np.maximum(float(residual @ residual) - residual * deviation, 0.0) / df
    error = np.sqrt(np.divide(left, share, out=np.ones_like(left), where=is_tested))
    is_tested &= error > _LEAST_ERROR * np.abs(deviation)
    ratio = np.divide(np.abs(deviation), error, out=np.zeros_like(error), where=is_tested)
    p_values = np.minimum(2 * special.stdtr(df, -ratio) * len(share), 1.0)
    found = [
        _outlier(trials, group, int(effects.present[each]), deviation[each], p_values[each])
        for each in np.flatnonzero(is_tested & (p_values < LEVEL))
        if _is_far_from_own(effects, int(each))
    ]
    return sorted(found, key=lambda one: -abs(one.deviation))


def _is_far_from_own(effects: Effects, index: int) -> bool:
    """Whether a trial is also far from the others of its weight, which may be a noisy one.

    A t test of one against the rest, at a liberal level; true with fewer than two others.
    """
    own = effects.trial_setting == effects.trial_setting[index]
    own[index] = False
    others = effects.residual[own]
    if len(others) < 2:
        return True
    error = float(others.std(ddof=1)) * (1 + 1 / len(others)) ** 0.5
    distance = abs(float(effects.residual[index] - others.mean()))
    if error <= _LEAST_ERROR * distance:
        return True
    return bool(2 * special.stdtr(len(others) - 1, -distance / error) < _OWN_LEVEL)


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
