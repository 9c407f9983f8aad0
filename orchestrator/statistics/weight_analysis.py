"""One question about the weights: the mean curve of a group, or that of one of its cells.

Where weights are repeated, free means decide whether the weight matters, and the curve, a quadratic
in w_p, only locates the optimum, and only where it fits. Else the curve is all there is.

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

# "curve": it fits; "means": it does not, or cannot be tested; "assumed curve": no repeated weights.
Method = Literal["curve", "means", "assumed curve"]

# A curve that misses by this much is not used to locate the optimum. Large on purpose: a test that
# finds nothing is weak evidence of a parabola, and means are right for any curve.
FIT_LEVEL = 0.2
# The w_p of PLW 1e-4.
_NEXT_TO_ZERO = 1e-4**W_P_EXPONENT


@dataclass(frozen=True, kw_only=True)
class WeightAnalysis:
    """What was estimated to answer one question.

    Attributes:
        cell: None for the mean over all cells.
        w_p: (K) the weights that are compared, ascending.
        means, pairs: estimates of their means (K); `pairs` with noise for comparing two.
        curve: estimates of (slope, curvature) in w_p over [low, high].
        interaction_p_value: of all cells having the same curve; None with one cell.
        is_judged: whether the report has a verdict on it; else it is only drawn.
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
    is_judged: bool

    @cached_property
    def p_value(self) -> float:
        """Of the weight making no difference."""
        if self.means is not None:
            return self.means.f_test(_centring(len(self.w_p)))
        if self.curve is not None:
            return self.curve.f_test(np.eye(2))
        return 1.0

    @cached_property
    def lack_of_fit(self) -> float | None:
        """The p-value of the curve against free means; None where it cannot be tested."""
        if self.means is None or self.curve is None or len(self.w_p) <= MIN_WEIGHTS:
            return None
        terms = np.vander(self.w_p, MIN_WEIGHTS, increasing=True)
        beyond = np.linalg.qr(terms, mode="complete")[0][:, MIN_WEIGHTS:]
        return self.means.f_test(beyond.T)

    @cached_property
    def method(self) -> Method:
        """What locates the optimum."""
        if self.means is None:
            return "assumed curve"
        fits = self.lack_of_fit is not None and self.lack_of_fit >= FIT_LEVEL
        return "curve" if fits else "means"

    @property
    def estimates(self) -> Estimates | None:
        """Those of the method; None where nothing could be fitted."""
        return self.means if self.method == "means" else self.curve

    @property
    def optimum(self) -> float:
        """The best w_p: the top of the curve in the tried range, or the best tried weight."""
        if self.method == "means":
            assert self.means is not None
            return float(self.w_p[int(np.argmax(self.means.values))])
        assert self.curve is not None
        slope, curvature = self.curve.values
        top = quadratic_top(float(slope), float(curvature), self.low, self.high)
        # No report tells such a weight from 0, and no trainer either.
        return 0.0 if self.low == 0.0 and top < _NEXT_TO_ZERO else top

    @property
    def observed_range(self) -> float | None:
        """The largest difference between two observed means; None where weights lack one."""
        return None if self.means is None else float(np.ptp(self.means.values))


def quadratic_top(slope: float, curvature: float, low: float, high: float) -> float:
    """Where slope w + curvature w^2 is highest in [low, high]."""
    if curvature < 0:
        return float(min(max(-slope / (2 * curvature), low), high))
    return high if slope + curvature * (low + high) > 0 else low


def analyse_weights(effects: Effects, trials: Trials, group: str) -> list[WeightAnalysis]:
    """The mean over the cells and, of several cells with curves of their own, each of them."""
    found = [_analysis(effects, trials, group, None)]
    if len(effects.cells) > 1 and effects.has_own_curves:
        found += [_analysis(effects, trials, group, cell) for cell in effects.cells]
    return [each for each in found if each.means is not None or each.curve is not None]


def _analysis(effects: Effects, trials: Trials, group: str, cell: int | None) -> WeightAnalysis:
    own = (cell,) if cell is not None else effects.cells
    tried = np.unique([at for number, at in effects.settings if number in own])
    means = pairs = None
    w_p = tried
    if effects.means is not None and effects.pairs is not None:
        shared, rows = _mean_rows(effects, own)
        if len(shared) >= 2:
            w_p, means, pairs = shared, effects.means.mapped(rows), effects.pairs.mapped(rows)
    return WeightAnalysis(
        group=group,
        cell=None if cell is None else trials.cells[cell],
        w_p=w_p,
        means=means,
        pairs=pairs,
        curve=_mean_curve(effects, own),
        low=float(tried[0]),
        high=float(tried[-1]),
        num_trials=int(np.isin(trials.cell[effects.present], own).sum()),
        interaction_p_value=_interaction(effects) if cell is None else None,
        is_judged=True,
    )


def _mean_rows(effects: Effects, own: tuple[int, ...]) -> tuple[Array, Array]:
    """The weights (K) tried in all of the cells, and rows (K, S) that average over the cells."""
    tried = [{at for number, at in effects.settings if number == cell} for cell in own]
    shared = sorted(set.intersection(*tried))
    rows = np.zeros((len(shared), len(effects.settings)))
    for index, (number, at) in enumerate(effects.settings):
        if number in own and at in tried[0] and at in shared:
            rows[shared.index(at), index] = 1 / len(own)
    return np.array(shared), rows


def _mean_curve(effects: Effects, own: tuple[int, ...]) -> Estimates | None:
    if effects.curves is None:
        return None
    num_curves = len(effects.curves.values) // 2
    share = np.full(num_curves, 1 / num_curves)
    if num_curves > 1:
        share = np.isin(effects.cells, own) / len(own)
    return effects.curves.mapped(np.kron(np.eye(2), share))


def _interaction(effects: Effects) -> float | None:
    """The p-value of all cells having one curve, up to a level."""
    num_cells = len(effects.cells)
    if num_cells == 1:
        return None
    differences = np.eye(num_cells)[1:] - np.eye(num_cells)[0]
    if effects.means is not None:
        each = [_mean_rows(effects, (cell,)) for cell in effects.cells]
        shared = _mean_rows(effects, effects.cells)[0]
        if len(shared) >= 2:
            rows = [own[np.isin(w_p, shared)] for w_p, own in each]
            centred = _centring(len(shared))
            contrasts = [centred @ (one - rows[0]) for one in rows[1:]]
            return effects.means.f_test(np.vstack(contrasts))
    if effects.curves is None or not effects.has_own_curves:
        return None
    return effects.curves.f_test(np.kron(np.eye(2), differences))


def _centring(size: int) -> Array:
    return np.eye(size) - 1 / size
