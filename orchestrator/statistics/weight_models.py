"""Least squares on free means with seeds as blocks, and F tests between such models.

Scores and columns are centred within blocks, which is the same as a column for each block
(Frisch, Waugh, Lovell) and needs no matrix with thousands of seeds. Degrees of freedom are counted
here, because the fit of centred columns does not know of the means that were taken out.

Shape legend: N trials, K means, B blocks. All numbers are float64.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

# Blocks cost information where few means share a seed. More of what is known of the worst-known
# difference between two means is not given up.
_MIN_KEPT = 2 / 3
_TINY = 1e-9


class Comparison(NamedTuple):
    """The F test of a smaller model within a larger one."""

    f: float
    freedom: int
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fit of free means.

    `effects` (K,) are known up to a common constant and `unscaled` (K, K) is their covariance over
    that of a trial. `ssr` is the residual sum of squares with `freedom` degrees. `leverages` (N,)
    count the block's mean too. `centre` (K,) and `centre_level` are the average over blocks of the
    share of each mean in a block, and of the blocks' mean scores; `centre_error` is the standard
    error of the latter over that of a trial.
    """

    effects: Array
    unscaled: Array
    residuals: Array
    leverages: Array
    ssr: float
    rank: int
    freedom: int
    centre: Array
    centre_level: float
    centre_error: float

    @property
    def variance(self) -> float:
        """That of a trial's score beside its mean and its block; needs freedom above 0."""
        return self.ssr / self.freedom

    def quantile(self, probability: float) -> float:
        """That of Student's t with the degrees of freedom of the noise."""
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, probability))

    def difference_errors(self) -> Array:
        """Standard errors (K, K) of the differences between means; NaN without freedom."""
        if self.freedom == 0:
            return np.full_like(self.unscaled, np.nan)
        own = np.diag(self.unscaled)
        squares = own[:, None] + own[None, :] - 2 * self.unscaled
        return np.asarray(np.sqrt(np.maximum(squares, 0.0) * self.variance))

    def levels(self) -> tuple[Array, Array]:
        """Means (K,) at the average of the blocks, and their standard errors (NaN as above)."""
        shifts = np.eye(len(self.effects)) - self.centre
        values = self.centre_level + shifts @ self.effects
        if self.freedom == 0:
            return values, np.full_like(values, np.nan)
        squares = self.centre_error**2 + np.einsum("ki,ij,kj->k", shifts, self.unscaled, shifts)
        return values, np.asarray(np.sqrt(np.maximum(squares, 0.0) * self.variance))

    def scaled_residuals(self) -> Array:
        """Residuals (N,) over the root of the share of noise that is left in them; 0 where none."""
        rest = 1 - self.leverages
        is_free = rest > _TINY
        scaled = np.zeros_like(self.residuals)
        scaled[is_free] = self.residuals[is_free] / np.sqrt(rest[is_free])
        return scaled

    def outliers(self, level: float) -> list[int]:
        """Trials whose externally studentised residual is significant, Bonferroni over all.

        Source: Cook and Weisberg 1982, Residuals and Influence in Regression, section 2.2.1.
        """
        from scipy.stats import t

        if self.freedom < 2:
            return []
        squares = self.scaled_residuals() ** 2
        # The variance without the trial; a floor, since it may be all of the noise.
        without = np.maximum(self.ssr - squares, _TINY * self.ssr) / (self.freedom - 1)
        p_values = 2 * t.sf(np.sqrt(squares / without), self.freedom - 1) * len(squares)
        return [int(index) for index in np.flatnonzero(p_values < level)]


def one_hot(codes: Ints) -> Array:
    """(N, K): which of K levels, numbered from 0, each trial has."""
    return np.asarray(codes[:, None] == np.arange(codes.max() + 1)[None, :], dtype=np.float64)


def fit_means(scores: Array, design: Array, block: Ints) -> Fit:
    """Least squares of `scores` (N,) on `design` (N, K) within blocks, numbered from 0 (N,)."""
    sizes = np.bincount(block)
    columns, column_means = _centred(design, block)
    values, value_means = _centred(scores[:, None], block)
    # Centred columns of free means are linearly dependent: the estimates are those of the
    # pseudo-inverse, in which every estimable difference is as in any other solution.
    basis = _row_space(columns)
    effects, unscaled, residuals = _least_squares(values[:, 0], columns @ basis)
    unscaled = basis @ unscaled @ basis.T
    return Fit(
        effects=basis @ effects,
        unscaled=unscaled,
        residuals=residuals,
        leverages=np.einsum("nk,kl,nl->n", columns, unscaled, columns) + 1 / sizes[block],
        ssr=float(residuals @ residuals),
        rank=basis.shape[1],
        freedom=len(scores) - len(sizes) - basis.shape[1],
        centre=column_means.mean(axis=0),
        centre_level=float(value_means.mean()),
        centre_error=float(np.sqrt((1 / sizes).sum()) / len(sizes)),
    )


def _least_squares(values: Array, columns: Array) -> tuple[Array, Array, Array]:
    """Coefficients, their covariance over that of a value, and residuals."""
    if not columns.shape[1]:
        return np.zeros(0), np.zeros((0, 0)), values
    from statsmodels.regression.linear_model import OLS

    found = OLS(values, columns).fit()
    parts = (found.params, found.normalized_cov_params, found.resid)
    coefficients, unscaled, residuals = (np.asarray(part, dtype=np.float64) for part in parts)
    return coefficients, unscaled, residuals


def _row_space(columns: Array) -> Array:
    """(K, R): an orthonormal basis of the rows of `columns` (N, K), whose rank is R."""
    _, sizes, rows = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(rows[sizes > _TINY * max(1.0, sizes.max(initial=0.0))].T)


def compare(smaller: Fit, larger: Fit, noise: Fit) -> Comparison | None:
    """The F test of `smaller` within `larger`, over the variance of `noise`.

    None where the larger model has no more free means than the smaller one.
    """
    from scipy.stats import f

    freedom = larger.rank - smaller.rank
    if freedom <= 0:
        return None
    ratio = max(smaller.ssr - larger.ssr, 0.0) / freedom / noise.variance
    return Comparison(float(ratio), freedom, float(f.sf(ratio, freedom, noise.freedom)))


def has_blocks(design: Array, seed: Ints, min_freedom: int) -> bool:
    """Whether seeds, numbered from 0 (N,), are taken out as blocks beside the means of `design`.

    So where they leave all differences between means estimable, `min_freedom` degrees of freedom
    and two thirds of what is known of every difference. It depends on which trials there are and
    never on their scores: a choice by the scores would make the tests too sure.
    """
    if seed.max() == 0:
        return False
    within, _ = _centred(design, seed)
    overall, _ = _centred(design, np.zeros_like(seed))
    most = design.shape[1] - 1
    rank = _row_space(within).shape[1]
    if rank < most or len(seed) - (seed.max() + 1) - rank < min_freedom:
        return False
    # Contrasts between the means, in which both matrices are invertible.
    contrasts = np.linalg.qr(np.eye(most + 1)[:, 1:] - 1 / (most + 1))[0]
    inside = contrasts.T @ within.T @ within @ contrasts
    outside = contrasts.T @ overall.T @ overall @ contrasts
    kept = np.linalg.eigvals(np.linalg.solve(outside, inside)).real.min()
    return bool(kept >= _MIN_KEPT - _TINY)


def _centred(columns: Array, block: Ints) -> tuple[Array, Array]:
    """Columns (N, K) less their block's means, and those means (B, K)."""
    sizes = np.bincount(block)
    sums = np.zeros((len(sizes), columns.shape[1]))
    np.add.at(sums, block, columns)
    means = sums / sizes[:, None]
    return columns - means[block], means
