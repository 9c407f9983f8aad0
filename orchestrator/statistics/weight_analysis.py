"""Analyse one question about the weights: the mean curve of a group, or the curve of one cell.

If weights are repeated, free means decide whether the weight matters. The curve, a quadratic in
w_p, then only locates the optimum, and only if it fits. Without repeated weights, the analysis uses
only the curve.

Shapes: K tried weights, S settings, C cells.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.foundation.plw_scale import W_P_EXPONENT
from orchestrator.statistics.estimates import Estimates
from orchestrator.statistics.trial_points import Cell, Trials
from orchestrator.statistics.weight_effects import MIN_WEIGHTS, Effects

Array = NDArray[np.float64]

# "curve": the curve fits; "means": the curve does not fit or cannot be tested; "assumed curve": no
# weights are repeated.
Method = Literal["curve", "means", "assumed curve"]

# A curve locates the optimum only if its lack-of-fit p-value is at least this. The level is high on
# purpose: a non-significant test is weak evidence of a parabola, and means are valid for any curve.
FIT_LEVEL = 0.2
# The w_p of PLW 1e-4.
_NEAR_ZERO_W_P = 1e-4**W_P_EXPONENT


@dataclass(frozen=True, kw_only=True)
class WeightAnalysis:
    """Estimates that answer one question.

    Attributes:
        cell: None for the mean over all cells.
        w_p: (K) weights that are compared, ascending.
        means, pairs: estimates of the weights' means (K); `pairs` has the noise for comparing two
            of them.
        curve: estimates of (slope, curvature) in w_p over [low, high].
        interaction_p_value: p-value of the hypothesis that all cells have the same curve; None with
            one cell.
        has_verdict: whether the report has a verdict on it; if False, it is only drawn.
    """

    group: str
    cell: Cell | None
    w_p: Array
    means: Estimates | None
    pairs: Estimates | None
    curve: Estimates | None
    low: float
    high: float
    num_trials: int
    interaction_p_value: float | None
    has_verdict: bool

    @cached_property
    def p_value(self) -> float:
        """P-value of the hypothesis that the weight makes no difference."""
        if self.means is not None:
            return self.means.f_test(_centring(len(self.w_p)))
        if self.curve is not None:
            return self.curve.f_test(np.eye(2))
        return 1.0

    @cached_property
    def lack_of_fit(self) -> float | None:
        """P-value of the curve against free means; None if it cannot be tested."""
        if self.means is None or self.curve is None or len(self.w_p) <= MIN_WEIGHTS:
            return None
        terms = np.vander(self.w_p, MIN_WEIGHTS, increasing=True)
        beyond = np.linalg.qr(terms, mode="complete")[0][:, MIN_WEIGHTS:]
        return self.means.f_test(beyond.T)

    @cached_property
    def method(self) -> Method:
        """Basis of the optimum: curve, means, or assumed curve."""
        if self.means is None:
            return "assumed curve"
        fits = self.lack_of_fit is not None and self.lack_of_fit >= FIT_LEVEL
        return "curve" if fits else "means"

    @property
    def estimates(self) -> Estimates | None:
        """The estimates of the method; None if nothing could be fitted."""
        return self.means if self.method == "means" else self.curve

    @property
    def optimum(self) -> float:
        """The best w_p: the maximum of the curve in the tried range, or the best tried weight."""
        if self.method == "means":
            assert self.means is not None
            return float(self.w_p[int(np.argmax(self.means.values))])
        assert self.curve is not None
        slope, curvature = self.curve.values
        best = quadratic_argmax(float(slope), float(curvature), self.low, self.high)
        # Such a weight is equivalent to 0 in reports and in training.
        return 0.0 if self.low == 0.0 and best < _NEAR_ZERO_W_P else best

    @property
    def observed_range(self) -> float | None:
        """The largest difference between two observed means; None without means."""
        return None if self.means is None else float(np.ptp(self.means.values))


def quadratic_argmax(slope: float, curvature: float, low: float, high: float) -> float:
    """Return the w in [low, high] at which slope w + curvature w^2 is highest."""
    if curvature < 0:
        return float(min(max(-slope / (2 * curvature), low), high))
    return high if slope + curvature * (low + high) > 0 else low


def analyse_weights(effects: Effects, trials: Trials, group: str) -> list[WeightAnalysis]:
    """Return the analysis of the mean over cells, then of each cell with its own curve."""
    found = [_analysis(effects, trials, group, None)]
    if len(effects.cells) > 1 and effects.has_curve_per_cell:
        found += [_analysis(effects, trials, group, cell) for cell in effects.cells]
    return [each for each in found if each.means is not None or each.curve is not None]


def _analysis(effects: Effects, trials: Trials, group: str, cell: int | None) -> WeightAnalysis:
    of_cells = (cell,) if cell is not None else effects.cells
    tried = np.unique([at for number, at in effects.settings if number in of_cells])
    means = pairs = None
    w_p = tried
    if effects.means is not None and effects.pairs is not None:
        shared, rows = _mean_rows(effects, of_cells)
        if len(shared) >= 2:
            w_p, means, pairs = shared, effects.means.transform(rows), effects.pairs.transform(rows)
    return WeightAnalysis(
        group=group,
        cell=None if cell is None else trials.cells[cell],
        w_p=w_p,
        means=means,
        pairs=pairs,
        curve=_mean_curve(effects, of_cells),
        low=float(tried[0]),
        high=float(tried[-1]),
        num_trials=int(np.isin(trials.cell[effects.present], of_cells).sum()),
        interaction_p_value=_interaction(effects) if cell is None else None,
        has_verdict=True,
    )


def _mean_rows(effects: Effects, of_cells: tuple[int, ...]) -> tuple[Array, Array]:
    """Return the weights (K) tried in all given cells, and rows (K, S) that average over cells."""
    tried = [{at for number, at in effects.settings if number == cell} for cell in of_cells]
    shared = sorted(set.intersection(*tried))
    rows = np.zeros((len(shared), len(effects.settings)))
    for index, (number, at) in enumerate(effects.settings):
        if number in of_cells and at in tried[0] and at in shared:
            rows[shared.index(at), index] = 1 / len(of_cells)
    return np.array(shared), rows


def _mean_curve(effects: Effects, of_cells: tuple[int, ...]) -> Estimates | None:
    if effects.curves is None:
        return None
    num_curves = len(effects.curves.values) // 2
    share = np.full(num_curves, 1 / num_curves)
    if num_curves > 1:
        share = np.isin(effects.cells, of_cells) / len(of_cells)
    return effects.curves.transform(np.kron(np.eye(2), share))


def _interaction(effects: Effects) -> float | None:
    """Return the p-value of the hypothesis that all cells have the same curve, up to a level."""
    num_cells = len(effects.cells)
    if num_cells == 1:
        return None
    differences = np.eye(num_cells)[1:] - np.eye(num_cells)[0]
    if effects.means is not None:
        each = [_mean_rows(effects, (cell,)) for cell in effects.cells]
        shared = _mean_rows(effects, effects.cells)[0]
        if len(shared) >= 2:
            rows = [means[np.isin(w_p, shared)] for w_p, means in each]
            centred = _centring(len(shared))
            contrasts = [centred @ (one - rows[0]) for one in rows[1:]]
            return effects.means.f_test(np.vstack(contrasts))
    if effects.curves is None or not effects.has_curve_per_cell:
        return None
    return effects.curves.f_test(np.kron(np.eye(2), differences))


def _centring(size: int) -> Array:
    return np.eye(size) - 1 / size
