"""A fitted curve in points of the score, with a band, for whoever draws it."""

from dataclasses import dataclass

import numpy as np

from orchestrator.statistics.curves import Cell, Curve, Trials

_NUM_PLACES = 41


@dataclass(frozen=True, kw_only=True)
class DrawnCurve:
    """The curve of a group, in one cell or the mean of all, at `w_p`.

    `rise`, `low` and `high`: above its own mean over the trials, in the unit of the answer, with
    the 95% band of its shape at each place (not of its level, which no verdict depends on); None
    where too few trials tell how wide it is.
    """

    group: str
    cell: Cell | None
    w_p: tuple[float, ...]
    rise: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None


def draw_curve(curve: Curve, trials: Trials) -> DrawnCurve:
    """`curve` as it is to be drawn."""
    fit = curve.fit
    tried = trials.w_p
    if curve.cell is not None:
        tried = tried[trials.cell == trials.cells.index(curve.cell)]
    places = np.linspace(fit.low, fit.high, _NUM_PLACES)
    steps = np.column_stack([places - tried.mean(), places**2 - np.mean(tried**2)])
    rise = steps @ np.array([fit.slope, fit.curvature])
    error = np.sqrt(np.maximum(np.einsum("ni,ij,nj->n", steps, fit.covariance, steps), 0))
    half = fit.quantile(0.975) * error
    # A loss was turned around to be fitted, with more being better; so is this turned back.
    rise, low, high = (
        tuple(np.atleast_1d(trials.in_points(curve.group, each)).tolist())
        for each in (rise, rise - half, rise + half)
    )
    return DrawnCurve(
        group=curve.group,
        cell=curve.cell,
        w_p=tuple(places.tolist()),
        rise=rise,
        low=low if curve.knows_noise else None,
        high=high if curve.knows_noise else None,
    )
