"""Fit trial values by least squares: free means of the weights, curves in w_p, and noise.

    value = cell (or cell x seed) + learning rate + mean of its weight + noise

Seeds are blocks if each was tried at enough weights. A seed fixes the data order and all random
draws, so its common effect on all weights is not noise between weights. Cells and seeds are removed
by centring. Whether seeds are blocks depends only on which trials exist, never on their scores: a
choice by the scores would bias the tests.

If rates vary, a point (a setting at one rate) counts once: the noise is that of the points' means
around the fit, so it contains the misfit of the rate's curve, which all seeds of a point share.
Where weights were tried at rates of their own, as in a search, no comparison of two weights is free
of the rates. The analysis then uses only the curve in w_p.

Shapes: T trials, S settings (a weight in a cell), C cells.

Source: Fisher, The Design of Experiments (1935), on randomised blocks; Frisch & Waugh 1933.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.statistics.estimates import Estimates, Noise, equal_noise, estimate_noise
from orchestrator.statistics.trial_points import Trials

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_WEIGHTS = 3
# Minimum residual degrees of freedom to estimate noise.
MIN_MEANS_DF = 2
MIN_CURVE_DF = 3
# Maximum number of settings with free means; more are analysed by their curve alone.
MAX_SETTINGS = 300
# Prior degrees of freedom of the pooled variance when two weights are compared.
PRIOR_DF = 2.0
# Blocks must keep at least this share of the information on the weights.
_MIN_KEPT = 2 / 3
# With less of it left beside the learning rates, the weights' means are not compared.
_MIN_KEPT_BESIDE_RATES = 0.1


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Fitted values of one group (or overall) in the trials that have it.

    Attributes:
        settings: (S) cell index and w_p of each setting; `plws` (S) its PLW.
        trial_setting: (T) index into `settings`; `present` (T) index into the table's trials.
        means: estimates of the settings' means (S), comparable within a cell; `pairs` the same with
            the noise for comparing two of them. None if weights are not repeated.
        noise: noise of the trials, by setting if weights are repeated, else one variance from the
            curve; None if no degrees of freedom are left.
        curves: estimates of slope and curvature of each cell (2 C: all slopes first), or of one
            shared curve (2); None with fewer than three weights.
        has_own_rates: whether rates vary with the weights so that only an assumed curve in w_p
            separates the two.
        point: (T) index of each trial's point if rates vary and points have several trials, else
            None.
        nuisance: blocks and covariates removed from the values; `is_blocked` whether seeds are
            blocks.
        cells: the cells that are present, as indices into `Trials.cells`.
        seed_levels: cell index, seed and its common effect on all weights, if seeds are blocks.
        residual, share: (T) residuals of the largest fitted model, and shares of its `total_df`.
    """

    settings: tuple[tuple[int, float], ...]
    plws: tuple[float, ...]
    trial_setting: Ints
    present: Ints
    cells: tuple[int, ...]
    means: Estimates | None
    noise: Noise | None
    pairs: Estimates | None
    curves: Estimates | None
    has_curve_per_cell: bool
    has_own_rates: bool
    point: Ints | None
    nuisance: "Nuisance"
    is_blocked: bool
    seed_levels: tuple[tuple[int, str, float], ...]
    residual: Array
    share: Array
    total_df: float

    @property
    def is_replicated(self) -> bool:
        """True if weights are repeated, so that noise can be estimated without assuming a curve."""
        return self.means is not None


@dataclass(frozen=True)
class Nuisance:
    """Terms that are removed from values by centring: blocks (T), then covariates (T, Q)."""

    block: Ints
    covariates: Array

    @property
    def num_terms(self) -> int:
        """Degrees of freedom that the nuisance terms use."""
        return int(self.block.max()) + 1 + int(self.covariates.shape[1])

    def residualize(self, columns: Array) -> Array:
        """Return `columns` (T, P) minus their block means and the part explained by covariates."""
        sizes = np.bincount(self.block)
        centred = np.empty_like(columns, dtype=np.float64)
        for each in range(columns.shape[1]):
            means = np.bincount(self.block, columns[:, each]) / sizes
            centred[:, each] = columns[:, each] - means[self.block]
        return np.asarray(centred - self.covariates @ (self.covariates.T @ centred))

    @property
    def leverage(self) -> Array:
        """Leverage (T) of each trial on blocks and covariates."""
        sizes = np.bincount(self.block)[self.block]
        return np.asarray(1 / sizes + (self.covariates**2).sum(axis=1))


def fit_effects(trials: Trials, group: str) -> Effects | None:
    """Fit the effects of the weights on one group's values; None with fewer than two trials."""
    all_values = trials.group_values(group)
    present = np.flatnonzero(~np.isnan(all_values))
    if len(present) < 2:
        return None
    y = all_values[present]
    cells = tuple(np.unique(trials.cell[present]).tolist())
    cell = np.searchsorted(cells, trials.cell[present])
    w_p = trials.w_p[present]
    keys, trial_setting = np.unique(np.column_stack([cell, w_p]), axis=0, return_inverse=True)
    trial_setting = trial_setting.ravel()
    first = np.unique(trial_setting, return_index=True)[1]
    is_per_cell = all(
        len(np.unique(w_p[cell == each])) >= MIN_WEIGHTS for each in range(len(cells))
    )
    curve_terms = _curve_terms(w_p, cell, len(cells), is_per_cell)
    dummies = np.eye(len(keys))[trial_setting] if len(keys) <= MAX_SETTINGS else None
    seeds = [trials.seed[each] for each in present]
    rates = trials.learning_rate[present]
    nuisance = _choose_blocks(cell, seeds, rates, dummies, curve_terms)
    target = nuisance.residualize(y[:, None])[:, 0]
    free = _fit(dummies, nuisance, target) if dummies is not None else None
    is_curved = len(np.unique(w_p)) >= MIN_WEIGHTS
    curve = _fit(curve_terms, nuisance, target) if is_curved else None
    if curve is not None and curve.rank < curve_terms.shape[1]:
        curve = None
    point = np.unique(np.column_stack([trial_setting, rates]), axis=0, return_inverse=True)[1]
    point = point.ravel()
    is_clustered = rates.shape[1] > 0 and int(point.max()) + 1 < len(y)
    if is_clustered:
        free, curve = (
            fit and _by_points(fit, point, len(cells), nuisance) for fit in (free, curve)
        )
    noise = means = pairs = None
    richest = curve
    is_separable = dummies is not None and _is_free_of_rates(dummies, nuisance)
    if free is not None and is_separable and _is_replicated(free):
        noise = (
            equal_noise(free.residual, free.df)
            if is_clustered
            else estimate_noise(free.residual, free.share, trial_setting)
        )
        means = noise.estimates(free.linear, target)
        pairs = noise.shrunk(PRIOR_DF).estimates(free.linear, target)
        richest = free
    elif curve is not None and curve.df > 0.5:
        noise = equal_noise(curve.residual, curve.df)
    terms = dummies if richest is free else curve_terms
    rest = y if richest is None or terms is None else y - terms @ (richest.linear @ target)
    return Effects(
        settings=tuple((cells[int(own)], float(at)) for own, at in keys),
        plws=tuple(float(trials.plw[present[each]]) for each in first),
        trial_setting=trial_setting,
        present=present,
        cells=cells,
        means=means,
        noise=noise,
        pairs=pairs,
        curves=noise.estimates(curve.linear, target) if curve is not None and noise else None,
        has_curve_per_cell=is_per_cell,
        has_own_rates=rates.shape[1] > 0 and means is None,
        point=point if is_clustered else None,
        nuisance=nuisance,
        is_blocked=int(nuisance.block.max()) + 1 > len(cells),
        seed_levels=_seed_levels(nuisance, cells, seeds, cell, rest),
        residual=target if richest is None else richest.residual,
        # The residuals of a point's trials are equal, so outliers are not searched for.
        share=np.zeros(len(y)) if richest is None or is_clustered else richest.share,
        total_df=0.0 if richest is None else richest.df,
    )


@dataclass(frozen=True)
class _Fit:
    """Least squares of centred values on centred terms.

    `linear` (P, T) maps values to coefficients, `basis` (T, rank) spans the centred terms, `share`
    (T) is each trial's share of the residual df.
    """

    linear: Array
    basis: Array
    rank: int
    residual: Array
    share: Array
    df: float


def _fit(terms: Array, nuisance: Nuisance, target: Array) -> _Fit:
    centred = nuisance.residualize(terms)
    moments = centred.T @ centred
    values, vectors = np.linalg.eigh(moments)
    is_kept = values > 1e-10 * max(float(values.max(initial=0.0)), 1e-300)
    basis = centred @ (vectors[:, is_kept] / np.sqrt(values[is_kept]))
    linear = (vectors[:, is_kept] / np.sqrt(values[is_kept])) @ basis.T
    residual = target - basis @ (basis.T @ target)
    share = np.clip(1 - nuisance.leverage - (basis**2).sum(axis=1), 0.0, 1.0)
    rank = int(is_kept.sum())
    df = float(len(target) - nuisance.num_terms - rank)
    return _Fit(linear, basis, rank, residual, share, df)


def _curve_terms(w_p: Array, cell: Ints, num_cells: int, is_per_cell: bool) -> Array:
    """Return (T, 2 C): w_p of each cell, then w_p^2 of each; (T, 2) if cells share a curve."""
    shares = np.eye(num_cells)[cell] if is_per_cell else np.ones((len(w_p), 1))
    return np.hstack([shares * w_p[:, None], shares * w_p[:, None] ** 2])


def _seed_levels(
    nuisance: Nuisance, cells: tuple[int, ...], seeds: Sequence[str], cell: Ints, rest: Array
) -> tuple[tuple[int, str, float], ...]:
    """Return each block's mean minus its cell's mean, after removing the weights' effects."""
    first = np.unique(nuisance.block, return_index=True)[1]
    if len(first) == len(cells):
        return ()
    level = np.bincount(nuisance.block, rest) / np.bincount(nuisance.block)
    of_cell = np.bincount(cell, rest) / np.bincount(cell)
    return tuple(
        (cells[cell[each]], seeds[each], float(level[index] - of_cell[cell[each]]))
        for index, each in enumerate(first)
    )


def _is_free_of_rates(dummies: Array, nuisance: Nuisance) -> bool:
    """Return whether the weights' means keep enough information beside the learning rates."""
    without_rates = Nuisance(nuisance.block, nuisance.covariates[:, :0])
    kept = _information_kept(dummies, without_rates, nuisance)
    return kept >= _MIN_KEPT_BESIDE_RATES - 1e-9


def _by_points(fit: _Fit, point: Ints, num_cells: int, nuisance: Nuisance) -> _Fit:
    """Return the fit with the residuals and df of the points' means (T: index of the point)."""
    residual = means_of_points(fit.residual[:, None], point)[:, 0]
    return replace(
        fit, residual=residual, df=min(fit.df, df_of_points(point, num_cells, nuisance, fit.rank))
    )


def means_of_points(residuals: Array, point: Ints) -> Array:
    """Return the mean residuals (T, P) of each trial's point.

    Noise of their variance gives the points' means the scatter seen.
    """
    members = np.eye(int(point.max()) + 1)[point]
    return np.asarray(members @ (members.T @ residuals / members.sum(axis=0)[:, None]))


def df_of_points(point: Ints, num_cells: int, nuisance: Nuisance, rank: int) -> float:
    """Return the degrees of freedom that points leave beside cells, rates and `rank` terms."""
    num_terms = num_cells + nuisance.covariates.shape[1] + rank
    return max(0.0, float(point.max() + 1 - num_terms))


def _is_replicated(free: _Fit) -> bool:
    """Return whether repeated weights leave enough df to estimate the noise of that many means."""
    return free.df >= max(MIN_MEANS_DF, free.rank / 2) - 1e-9


def _choose_blocks(
    cell: Ints, seeds: Sequence[str], rates: Array, dummies: Array | None, curve_terms: Array
) -> Nuisance:
    """Return cell x seed blocks if they keep enough information, else blocks of cells alone."""
    by_cell = _nuisance(cell, rates)
    names = {key: index for index, key in enumerate(dict.fromkeys(zip(cell, seeds, strict=True)))}
    block = np.array([names[key] for key in zip(cell, seeds, strict=True)], dtype=np.int64)
    if len(names) == len(np.unique(cell)):
        return by_cell
    by_seed = _nuisance(block, rates)
    terms, min_df = curve_terms, MIN_CURVE_DF
    if dummies is not None and _df(dummies, by_seed) >= max(MIN_MEANS_DF, dummies.shape[1] / 2 - 1):
        terms, min_df = dummies, MIN_MEANS_DF
    keeps = (
        _df(terms, by_seed) >= min_df
        and _information_kept(terms, by_cell, by_seed) >= _MIN_KEPT - 1e-9
    )
    return by_seed if keeps else by_cell


def _nuisance(block: Ints, rates: Array) -> Nuisance:
    blocks_only = Nuisance(block, np.zeros((len(block), 0)))
    centred = blocks_only.residualize(rates)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    return Nuisance(block, left[:, sizes > 1e-9])


def _df(terms: Array, nuisance: Nuisance) -> float:
    rank = np.linalg.matrix_rank(nuisance.residualize(terms), tol=1e-8)
    return float(len(terms) - nuisance.num_terms - rank)


def _information_kept(terms: Array, coarse: Nuisance, fine: Nuisance) -> float:
    """Return the share of information kept by the least-known combination of terms."""
    before, after = coarse.residualize(terms), fine.residualize(terms)
    values, vectors = np.linalg.eigh(before.T @ before)
    is_known = values > 1e-9 * max(float(values.max(initial=0.0)), 1e-300)
    root = vectors[:, is_known] / np.sqrt(values[is_known])
    return float(np.linalg.eigvalsh(root.T @ (after.T @ after) @ root).min(initial=1.0))
