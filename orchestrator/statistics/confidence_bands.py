"""Compute confidence bands for plots: a fitted curve with its band, or means with intervals."""

from dataclasses import dataclass

import numpy as np

from orchestrator.statistics.estimates import t_quantile
from orchestrator.statistics.trial_points import Cell, Trials
from orchestrator.statistics.weight_analysis import Method, WeightAnalysis
from orchestrator.statistics.weight_effects import MIN_CURVE_DF

_NUM_PLACES = 41


@dataclass(frozen=True, kw_only=True)
class CurveBand:
    """The fitted line of a group at `w_p`, in one cell or over all cells.

    `rise`, `low` and `high` are relative to the line's mean over the trials, in the unit of the
    conclusions. The 95% band is pointwise and describes the shape of the line. It excludes the
    level, which no verdict depends on. It is None if too few trials determine it. With method
    `means`, `w_p` contains the tried weights. `is_adjusted`: the effect of the learning rate is
    taken out.
    """

    group: str
    cell: Cell | None
    method: Method
    w_p: tuple[float, ...]
    rise: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None
    is_adjusted: bool


def curve_band(analysis: WeightAnalysis, trials: Trials) -> CurveBand:
    """Return the line that `analysis` is based on."""
    tried = trials.w_p
    if analysis.cell is not None:
        tried = tried[trials.cell == trials.cells.index(analysis.cell)]
    if analysis.method == "means":
        places = analysis.w_p
        counts = np.array([np.sum(tried == at) for at in places], dtype=float)
        rows = np.eye(len(places)) - counts / counts.sum()
    else:
        places = np.linspace(analysis.low, analysis.high, _NUM_PLACES)
        rows = np.column_stack([places - tried.mean(), places**2 - np.mean(tried**2)])
    estimates = analysis.estimates
    assert estimates is not None
    rise, errors, df = estimates.contrasts(rows)
    half = t_quantile(df, 0.975) * errors
    is_known = analysis.means is not None or estimates.noise.total_df >= MIN_CURVE_DF - 0.5
    return CurveBand(
        group=analysis.group,
        cell=analysis.cell,
        method=analysis.method,
        w_p=tuple(places.tolist()),
        rise=tuple(rise.tolist()),
        low=tuple((rise - half).tolist()) if is_known else None,
        high=tuple((rise + half).tolist()) if is_known else None,
        is_adjusted=trials.learning_rate.shape[1] > 0,
    )
