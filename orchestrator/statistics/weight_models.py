"""Fit free means by least squares with seeds as blocks, and run F tests between nested models.

Scores and columns are centred within blocks, which equals a column for each block (Frisch, Waugh,
Lovell) without a matrix over thousands of seeds. Degrees of freedom are computed here, because a
fit of centred columns ignores the removed means.

Shapes: N trials, K means, B blocks. All numbers are float64.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

# Minimum share of information that the least-known difference between two means must keep. Blocks
# lose information if few means share a seed.
_MIN_KEPT = 2 / 3
_TINY = 1e-9


class FTest(NamedTuple):
    """The F test of a smaller model within a larger one."""

    f: float
    df: int
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fit of free means.

    `effects` (K,) are known up to a common constant and `unscaled` (K, K) is their covariance over
    the variance of a trial. `ssr` is the residual sum of squares with `df` degrees of freedom.
    `leverages` (N,) include the block's mean. `centre` (K,) is the average over blocks of each
    mean's share in a block, `centre_level` the average of the blocks' mean scores, and
    `centre_error` the standard error of the latter over the sd of a trial.
    """

    effects: Array
    unscaled: Array
    residuals: Array
    leverages: Array
    ssr: float
    rank: int
    df: int
    centre: Array
    centre_level: float
    centre_error: float

    @property
    def variance(self) -> float:
        """Variance of a trial's score given its mean and block; needs df above 0."""
        return self.ssr / self.df

    def t_quantile(self, probability: float) -> float:
        """Return Student's t quantile with the degrees of freedom of the noise."""
        from scipy.special import stdtrit

        return float(stdtrit(self.df, probability))

    def difference_errors(self) -> Array:
        """Return standard errors (K, K) of the differences between means; NaN without df."""
        if self.df == 0:
            return np.full_like(self.unscaled, np.nan)
        own = np.diag(self.unscaled)
        squares = own[:, None] + own[None, :] - 2 * self.unscaled
        return np.asarray(np.sqrt(np.maximum(squares, 0.0) * self.variance))

    def levels(self) -> tuple[Array, Array]:
        """Return means (K,) at the average of the blocks, and their standard errors.

        The standard errors are NaN without df.
        """
        shifts = np.eye(len(self.effects)) - self.centre
        values = self.centre_level + shifts @ self.effects
        if self.df == 0:
            return values, np.full_like(values, np.nan)
        squares = self.centre_error**2 + np.einsum("ki,ij,kj->k", shifts, self.unscaled, shifts)
        return values, np.asarray(np.sqrt(np.maximum(squares, 0.0) * self.variance))

    def scaled_residuals(self) -> Array:
        """Return residuals (N,) over the root of 1 - leverage; 0 where the leverage is 1."""
        rest = 1 - self.leverages
        is_free = rest > _TINY
        scaled = np.zeros_like(self.residuals)
        scaled[is_free] = self.residuals[is_free] / np.sqrt(rest[is_free])
        return scaled

    def outliers(self, level: float) -> list[int]:
        """Return trials with a significant externally studentised residual (Bonferroni-corrected).

        Source: Cook and Weisberg 1982, Residuals and Influence in Regression, section 2.2.1.
        """
        from scipy.stats import t

        if self.df < 2:
            return []
        squares = self.scaled_residuals() ** 2
        # Variance without the trial, with a lower bound for a trial that contains all of the noise.
        without = np.maximum(self.ssr - squares, _TINY * self.ssr) / (self.df - 1)
        p_values = 2 * t.sf(np.sqrt(squares / without), self.df - 1) * len(squares)
        return [int(index) for index in np.flatnonzero(p_values < level)]


def one_hot(codes: Ints) -> Array:
    """Return (N, K): 1 at each trial's level, for K levels numbered from 0."""
    return np.asarray(codes[:, None] == np.arange(codes.max() + 1)[None, :], dtype=np.float64)


def fit_means(scores: Array, design: Array, block: Ints) -> Fit:
    """Fit `scores` (N,) on `design` (N, K) by least squares within blocks, numbered from 0 (N,)."""
    sizes = np.bincount(block)
    columns, column_means = _centred(design, block)
    values, value_means = _centred(scores[:, None], block)
    # Centred columns of free means are linearly dependent. The estimates are those of the
    # pseudo-inverse, whose estimable differences equal those of any other solution.
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
        df=len(scores) - len(sizes) - basis.shape[1],
        centre=column_means.mean(axis=0),
        centre_level=float(value_means.mean()),
        centre_error=float(np.sqrt((1 / sizes).sum()) / len(sizes)),
    )


def _least_squares(values: Array, columns: Array) -> tuple[Array, Array, Array]:
    """Return coefficients, their covariance over the variance of a value, and residuals."""
    if not columns.shape[1]:
        return np.zeros(0), np.zeros((0, 0)), values
    inverse = np.linalg.pinv(columns)
    coefficients = inverse @ values
    return coefficients, inverse @ inverse.T, values - columns @ coefficients


def _row_space(columns: Array) -> Array:
    """Return (K, R): an orthonormal basis of the rows of `columns` (N, K), whose rank is R."""
    _, sizes, rows = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(rows[sizes > _TINY * max(1.0, sizes.max(initial=0.0))].T)


def f_test(smaller: Fit, larger: Fit, noise: Fit) -> FTest | None:
    """Return the F test of `smaller` within `larger`, over the variance of `noise`.

    The result is None if the larger model has no more free means than the smaller one.
    """
    from scipy.stats import f

    df = larger.rank - smaller.rank
    if df <= 0:
        return None
    ratio = max(smaller.ssr - larger.ssr, 0.0) / df / noise.variance
    return FTest(float(ratio), df, float(f.sf(ratio, df, noise.df)))


def can_block_by_seed(design: Array, seed: Ints, min_df: int) -> bool:
    """Return whether seeds, numbered from 0 (N,), can be blocks for the means of `design`.

    They can if all differences between means stay estimable with two thirds of their information,
    and `min_df` degrees of freedom are left. The result depends on which trials exist, never on
    their scores: a choice by the scores would bias the tests.
    """
    if seed.max() == 0:
        return False
    within, _ = _centred(design, seed)
    overall, _ = _centred(design, np.zeros_like(seed))
    most = design.shape[1] - 1
    rank = _row_space(within).shape[1]
    if rank < most or len(seed) - (seed.max() + 1) - rank < min_df:
        return False
    # For contrasts between the means, both matrices are invertible.
    contrasts = np.linalg.qr(np.eye(most + 1)[:, 1:] - 1 / (most + 1))[0]
    inside = contrasts.T @ within.T @ within @ contrasts
    outside = contrasts.T @ overall.T @ overall @ contrasts
    kept = np.linalg.eigvals(np.linalg.solve(outside, inside)).real.min()
    return bool(kept >= _MIN_KEPT - _TINY)


def _centred(columns: Array, block: Ints) -> tuple[Array, Array]:
    """Return columns (N, K) minus their block's means, and those means (B, K)."""
    sizes = np.bincount(block)
    sums = np.zeros((len(sizes), columns.shape[1]))
    np.add.at(sums, block, columns)
    means = sums / sizes[:, None]
    return columns - means[block], means
