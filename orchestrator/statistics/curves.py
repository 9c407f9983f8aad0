"""Score curves over w_p: one for each group of benchmarks and one overall, with what is known.

The model of a group, on the logit scale of its scores:

    logit score = benchmark x cell + cell x (w_p, w_p^2) + learning rate + seed x cell + trial
                  + noise

A cell is a model with a data set (and a condition); the curve of a group is the mean of its cells'.
Seeds are blocks where each was tried at enough weights (orchestrator/statistics/seed_blocks.py).
Overall, each group counts alike: a trial's value is the mean of its groups', which leaves one
value a trial, so that luck shared by scores in whatever way is counted once.
Deviation from the paper: benchmarks have fixed intercepts of their own in each cell. With complete
data fixed and random ones give the same slopes; thirteen chosen benchmarks are no random draw.

Shapes: N scores, T trials, G groups, C cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from orchestrator.statistics.best_weight import QuadraticFit
from orchestrator.statistics.mixed_model import TrialFit, fit_trials
from orchestrator.statistics.seed_blocks import seed_blocks
from orchestrator.statistics.table import ScoreRow

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Cell = tuple[str, str, str]

OVERALL = "overall"
POINTS = 100.0
# A score of 0 or 1 moves inward by half an item, or by this where the items are not known.
_EDGE = 0.002
MIN_WEIGHTS = 3
# Scores come in steps of an item, so that with one or two trials to judge noise by, they may seem
# to have none.
_LEAST_FREEDOM = 2.5
# Above this share of a learning rate's spread explained by w_p, the two cannot be told apart.
_CONFOUNDED = 0.8
_DISTINCT_FOR_SQUARE = 3
_MAX_TURNS = 500


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The trials of a table as columns, each (T), and their scores by group.

    `values` (T, G): the mean of a trial's benchmarks in each group, on the scale of the fit, each
    benchmark counted from its own mean over the cell; NaN where a trial lacks the group.
    `levels`: the mean of each benchmark on that scale, by group; what a change is worth in points
    depends on it. `rates`: learning rates; `learning_rate` (T, 0 to 2): their centred logarithms
    and squares, where they vary and can be told from w_p.
    """

    keys: tuple[tuple[str, ...], ...]
    plw: Array
    w_p: Array
    cell: Ints
    cells: tuple[Cell, ...]
    seed: tuple[str, ...]
    learning_rate: Array
    rates: tuple[float | None, ...]
    is_confounded: bool
    groups: tuple[str, ...]
    values: Array
    levels: dict[str, Array]
    is_share: bool

    @property
    def w_p_range(self) -> tuple[float, float]:
        """The smallest and the largest tried."""
        return float(self.w_p.min()), float(self.w_p.max())

    @property
    def has_cell_curves(self) -> bool:
        """Whether every cell has weights enough for a curve of its own."""
        return all(
            len(np.unique(self.w_p[self.cell == each])) >= MIN_WEIGHTS
            for each in range(len(self.cells))
        )

    @property
    def is_complete(self) -> NDArray[np.bool_]:
        """(T): whether a trial has all groups."""
        return np.asarray(~np.isnan(self.values).any(axis=1), dtype=np.bool_)

    def terms(self, use: NDArray[np.bool_] | None = None) -> Array:
        """(T or those in `use`, C + 2 C or 2 + ...): intercepts, curves, learning rate, seeds."""
        present = np.arange(len(self.seed)) if use is None else np.flatnonzero(use)
        own = np.eye(len(self.cells))[self.cell]
        without = np.column_stack([own, self.curve_terms(), self.learning_rate])[present]
        seeds = [self.seed[each] for each in present]
        num_curve_terms = self.curve_terms().shape[1]
        blocks = seed_blocks(without, len(self.cells), num_curve_terms, self.cell[present], seeds)
        return np.column_stack([without, blocks])

    def curve_terms(self) -> Array:
        """(T, 2 C): w_p of each cell, then w_p^2 of each; (T, 2) where cells share a curve."""
        shares = np.eye(len(self.cells))[self.cell]
        if not self.has_cell_curves:
            shares = np.ones((len(self.w_p), 1))
        return np.hstack([shares * self.w_p[:, None], shares * self.w_p[:, None] ** 2])

    def group_values(self, group: str) -> Array:
        """(T): one group's, or the mean over all groups."""
        if group == OVERALL:
            return np.asarray(self.values.mean(axis=1), dtype=np.float64)
        return np.asarray(self.values[:, self.groups.index(group)], dtype=np.float64)

    def in_points(self, group: str, difference: float | Array) -> Array:
        """A difference of the curve in points of the score (or as it is, for losses).

        The mean over the group's benchmarks, half of the difference to either side of their means.
        """
        half = np.asarray(difference, dtype=np.float64)[..., None] / 2
        if not self.is_share:
            return 2 * half[..., 0]
        names = self.groups if group == OVERALL else (group,)
        moved = [
            (
                special.expit(self.levels[name] + half) - special.expit(self.levels[name] - half)
            ).mean(axis=-1)
            for name in names
        ]
        return np.asarray(POINTS * np.mean(moved, axis=0))


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The fitted curve of a group; `p_value` is of its being flat, `cell` None the mean of all.

    `interaction_p_value`: of the cells having one curve; None with one cell. `is_judged`: whether
    there is a verdict on it; the others, of a group in one of several cells, are there to be drawn.
    """

    group: str
    cell: Cell | None
    fit: QuadraticFit
    p_value: float
    interaction_p_value: float | None
    num_trials: int
    is_judged: bool = True

    @property
    def knows_noise(self) -> bool:
        """Whether enough trials are left beside the curve to say how sure it is."""
        return self.fit.freedom >= _LEAST_FREEDOM


def collect_trials(rows: Sequence[ScoreRow], *, shares: bool = True) -> Trials:
    """The trials of checked rows, in the order in which they appear."""
    first: dict[tuple[str, ...], ScoreRow] = {}
    for row in rows:
        first.setdefault(row.trial_key, row)
    trials = list(first.values())
    cells = tuple(sorted({row.cell for row in trials}))
    w_p = np.array([row.w_p for row in trials])
    cell = np.array([cells.index(row.cell) for row in trials], dtype=np.int64)
    learning_rate, is_confounded = _learning_rates(trials, w_p, cell, len(cells))
    groups = tuple(dict.fromkeys(row.group for row in rows))
    number = {key: index for index, key in enumerate(first)}
    values = np.full((len(trials), len(groups)), np.nan)
    levels = {}
    for index, group in enumerate(groups):
        own = [row for row in rows if row.group == group]
        y, weights = on_fit_scale(own, shares=shares)
        values[:, index], levels[group] = _means(own, y, weights, number)
    return Trials(
        keys=tuple(first),
        plw=np.array([row.plw for row in trials]),
        w_p=w_p,
        cell=cell,
        cells=cells,
        seed=tuple(row.seed for row in trials),
        learning_rate=learning_rate,
        rates=tuple(row.learning_rate for row in trials),
        is_confounded=is_confounded,
        groups=groups,
        values=values,
        levels=levels,
        is_share=shares,
    )


def on_fit_scale(rows: Sequence[ScoreRow], *, shares: bool) -> tuple[Array, Array]:
    """Each row's score on the scale of the fit, and how sure it is beside the others (mean 1).

    A share's standard error counts by what its benchmark's mean makes of it on the logit scale,
    so that a score's own luck does not set its weight.
    """
    score = np.array([row.score for row in rows])
    errors = np.array([row.standard_error or np.nan for row in rows], dtype=np.float64)
    if shares:
        score = inside_unit(rows)
        names = np.unique([row.benchmark for row in rows], return_inverse=True)[1]
        mean = (np.bincount(names, score) / np.bincount(names))[names]
        errors = errors / (mean * (1 - mean))
        score = special.logit(score)
    weights = np.ones_like(score) if np.isnan(errors).any() else 1 / errors**2
    return score, weights / weights.mean()


def inside_unit(rows: Sequence[ScoreRow]) -> Array:
    """The scores, those at 0 or 1 moved inward by half an item, which logits need."""
    items = np.array([row.num_items or np.nan for row in rows], dtype=np.float64)
    edge = np.minimum(np.where(np.isnan(items), _EDGE, 0.5 / items), 0.25)
    return np.asarray(np.clip([row.score for row in rows], edge, 1 - edge))


def _means(
    rows: Sequence[ScoreRow], y: Array, weights: Array, number: dict[tuple[str, ...], int]
) -> tuple[Array, Array]:
    """The trials' weighted means (T), and the level of each benchmark."""
    trial = np.array([number[row.trial_key] for row in rows])
    benchmark = _benchmark_numbers(rows)
    mass = np.bincount(trial, weights, len(number))
    centre_mass = np.bincount(benchmark, weights)
    mean = np.zeros(len(number))
    # By turns, so that a trial that lacks a benchmark is not taken for a better or a worse one;
    # with complete scores the second turn changes nothing.
    for _ in range(_MAX_TURNS):
        centre = np.bincount(benchmark, weights * (y - mean[trial])) / centre_mass
        total = np.bincount(trial, weights * (y - centre[benchmark]), len(number))
        found = np.divide(total, mass, out=np.zeros_like(mean), where=mass > 0)
        is_settled = np.abs(found - mean).max() < 1e-10
        mean = found
        if is_settled:
            break
    names = np.unique([row.benchmark for row in rows], return_inverse=True)[1]
    return np.where(mass > 0, mean, np.nan), np.bincount(names, y) / np.bincount(names)


def _benchmark_numbers(rows: Sequence[ScoreRow]) -> Ints:
    """The benchmark of each row, counted anew in each cell."""
    names = {
        name: number for number, name in enumerate({(row.benchmark, *row.cell): 0 for row in rows})
    }
    return np.array([names[row.benchmark, *row.cell] for row in rows], dtype=np.int64)


def _learning_rates(
    trials: Sequence[ScoreRow], w_p: Array, cell: Ints, num_cells: int
) -> tuple[Array, bool]:
    """The terms of the learning rate, and whether it went along with w_p."""
    none = np.zeros((len(trials), 0))
    if any(row.learning_rate is None for row in trials):
        return none, False
    logs = np.log10([row.learning_rate for row in trials if row.learning_rate])
    if np.ptp(logs) < 1e-9:
        return none, False
    centred = logs - logs.mean()
    beside = np.column_stack([np.eye(num_cells)[cell], w_p, w_p**2])
    rest = centred - beside @ np.linalg.lstsq(beside, centred, rcond=None)[0]
    own = centred - np.eye(num_cells)[cell] @ (
        np.bincount(cell, centred, num_cells) / np.bincount(cell, minlength=num_cells)
    )
    if rest @ rest <= (1 - _CONFOUNDED) * (own @ own) + 1e-12:
        return none, True
    powers = 2 if len(np.unique(logs.round(9))) >= _DISTINCT_FOR_SQUARE else 1
    return np.column_stack([centred**power for power in range(1, powers + 1)]), False


def fit_curves(rows: Sequence[ScoreRow], trials: Trials) -> list[Curve]:
    """The curves of each group and, of several, overall, each also in each of several cells.

    A group that leaves no trial over to judge noise by has none.
    """
    found: list[Curve] = []
    for group in trials.groups:
        own = [row for row in rows if row.group == group]
        # Its own trials and cells: a group need not be measured in all of them.
        curves = _group_curves(group, own, collect_trials(own, shares=trials.is_share))
        found += curves if len(trials.groups) > 1 else curves[:1]
    if len(trials.groups) > 1:
        complete = trials.is_complete
        found += _curves_of_trials(OVERALL, trials.group_values(OVERALL), complete, trials)
    elif found and len(trials.cells) > 1:
        complete = trials.is_complete
        found += _curves_of_trials(trials.groups[0], trials.values[:, 0], complete, trials)[1:]
    return found


def lack_of_fit(trials: Trials) -> float | None:
    """The p-value of the curve being a quadratic, against free means of each weight.

    Overall, or of the only group; None where seeds leave no noise to compare with.
    """
    use = trials.is_complete
    if not use.any():
        return None
    group = OVERALL if len(trials.groups) > 1 else trials.groups[0]
    y, terms = trials.group_values(group)[use], trials.terms(use)
    settings = np.unique(
        np.column_stack([trials.cell, trials.w_p])[use], axis=0, return_inverse=True
    )[1].ravel()
    if settings.max() + 1 == len(y):
        return None
    # In place of the curves.
    beside = terms[:, len(trials.cells) + trials.curve_terms().shape[1] :]
    free = np.column_stack([np.eye(int(settings.max()) + 1)[settings], beside])
    (squares, rank), (free_squares, free_rank) = _residual(y, terms), _residual(y, free)
    freedom = len(y) - free_rank
    if freedom < 1 or free_rank <= rank or free_squares <= 0:
        return None
    ratio = (squares - free_squares) / (free_rank - rank) / (free_squares / freedom)
    return float(special.fdtrc(free_rank - rank, freedom, max(ratio, 0.0)))


def _residual(y: Array, terms: Array) -> tuple[float, int]:
    """The residual sum of squares and the rank of the terms."""
    coefficients, _, rank, _ = np.linalg.lstsq(terms, y, rcond=None)
    return float(np.sum((y - terms @ coefficients) ** 2)), int(rank)


def _group_curves(group: str, rows: Sequence[ScoreRow], trials: Trials) -> list[Curve]:
    """The mean curve and, of several cells with curves of their own, that of each."""
    own = trials.terms()
    if not _is_enough(trials.w_p, own):
        return []
    number = {key: index for index, key in enumerate(trials.keys)}
    trial = np.array([number[row.trial_key] for row in rows])
    y, weights = on_fit_scale(rows, shares=trials.is_share)
    benchmark = _benchmark_numbers(rows)
    first = int(benchmark.max()) + 1
    # Intercepts of benchmarks in the place of those of cells.
    terms = np.column_stack([np.eye(first)[benchmark], own[trial][:, len(trials.cells) :]])
    try:
        fit = fit_trials(y, terms, trial, weights)
    except ValueError:
        return []
    present = np.arange(len(trials.keys))
    found = [_curve(group, None, fit, first, trials, present)]
    if len(trials.cells) > 1 and trials.has_cell_curves:
        each = [_curve(group, cell, fit, first, trials, present) for cell in trials.cells]
        found += [replace(curve, is_judged=False) for curve in each]
    return found


def _curves_of_trials(
    group: str, values: Array, use: NDArray[np.bool_], trials: Trials
) -> list[Curve]:
    """The mean curve and, of several cells with curves of their own, that of each."""
    present = np.flatnonzero(use)
    terms = trials.terms(use)
    if not _is_enough(trials.w_p[present], terms):
        return []
    fit = fit_trials(values[present], terms, np.arange(len(present)))
    first = len(trials.cells)
    found = [_curve(group, None, fit, first, trials, present)]
    if len(trials.cells) > 1 and trials.has_cell_curves:
        found += [_curve(group, cell, fit, first, trials, present) for cell in trials.cells]
    return found


def _is_enough(w_p: Array, terms: Array) -> bool:
    """Whether there are weights for a curve, and trials left over to judge noise by."""
    is_curved = len(np.unique(w_p)) >= MIN_WEIGHTS
    return bool(
        is_curved and len(w_p) > terms.shape[1] and np.linalg.matrix_rank(terms) == terms.shape[1]
    )


def _curve(
    group: str, cell: Cell | None, fit: TrialFit, first: int, trials: Trials, present: Ints
) -> Curve:
    num_curves = len(trials.cells) if trials.has_cell_curves else 1
    share = np.full(num_curves, 1 / num_curves)
    if cell is not None:
        share = np.eye(num_curves)[trials.cells.index(cell)]
    contrasts = np.zeros((2, len(fit.coefficients)))
    contrasts[0, first : first + num_curves] = share
    contrasts[1, first + num_curves : first + 2 * num_curves] = share
    p_value, freedom = fit.f_test(contrasts)
    low, high = trials.w_p_range
    slope, curvature = contrasts @ fit.coefficients
    quadratic = QuadraticFit(
        slope=float(slope),
        curvature=float(curvature),
        covariance=contrasts @ fit.covariance @ contrasts.T,
        freedom=freedom,
        low=low,
        high=high,
    )
    return Curve(
        group=group,
        cell=cell,
        fit=quadratic,
        p_value=p_value,
        interaction_p_value=_interaction(fit, first, num_curves) if cell is None else None,
        num_trials=len(present),
    )


def _interaction(fit: TrialFit, first: int, num_curves: int) -> float | None:
    if num_curves == 1:
        return None
    contrasts = np.zeros((2 * (num_curves - 1), len(fit.coefficients)))
    for each in range(num_curves - 1):
        for power in range(2):
            start = first + power * num_curves
            row = power * (num_curves - 1) + each
            contrasts[row, start + each], contrasts[row, start + each + 1] = 1, -1
    return fit.f_test(contrasts)[0]
