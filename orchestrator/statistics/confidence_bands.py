"""What a verdict rests on, to be drawn: a curve with its confidence band, or means."""

from dataclasses import dataclass

import numpy as np

from orchestrator.statistics.estimates import t_quantile
from orchestrator.statistics.trial_points import Cell, Trials
from orchestrator.statistics.weight_analysis import Method, WeightAnalysis
from orchestrator.statistics.weight_effects import MIN_CURVE_DF

_NUM_PLACES = 41


@dataclass(frozen=True, kw_only=True)
class DrawnCurve:
    """The line of a group, in one cell or the mean of all, at `w_p`.

    `rise`, `low` and `high`: above its own mean over the trials, in the unit of the answer, with
    the 95% band of its shape at each place (not of its level, which no verdict depends on); None
    where too few trials tell how wide it is. With method `means` the places are the tried weights.
    """

    group: str
    cell: Cell | None
    method: Method
    w_p: tuple[float, ...]
    rise: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None


def draw_curve(analysis: WeightAnalysis, trials: Trials) -> DrawnCurve:
    """The line that `analysis` rests on."""
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
    return DrawnCurve(
        group=analysis.group,
        cell=analysis.cell,
        method=analysis.method,
        w_p=tuple(places.tolist()),
        rise=tuple(rise.tolist()),
        low=tuple((rise - half).tolist()) if is_known else None,
        high=tuple((rise + half).tolist()) if is_known else None,
    )
