"""Linear estimates whose noise may differ between weights: contrasts, t and F tests.

Every estimate here is linear in the trial values, and the noise of a trial has the variance of its
noise group (its weight, where weights have several trials). The covariance of the estimates is then
a sum of one part per group, each known with the group's own degrees of freedom. Student's t with
Satterthwaite's df tests a contrast; Brown and Forsythe's F*, with Box's df, tests several at once.
With a single noise group both are the classical tests of least squares.

Shapes: P estimates, K noise groups, T trials, R contrasts.
Source: Brown & Forsythe 1974; Mehrotra 1997 (numerator df); Satterthwaite 1946; Brunner, Dette &
Munk 1997 for the general form. Deviation: the numerator df uses unbiased squares of variances.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

# A few trials may agree by chance: no weight counts as less noisy than this share of the mean.
_LEAST_VARIANCE = 0.1
# A noise group with less of a df of its own takes the variance of all groups.
_LEAST_DF = 0.25
# Two seeds leave a weight less than one df, with which the tests find hardly anything. Counted as
# at least so many, they keep their size, also under threefold noise (docs/design-log.md).
_LEAST_COUNTED_DF = 4 / 3


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The variance of one trial in each noise group.

    Attributes:
        group: (T) the noise group of each trial.
        variance, df: (K) of each group.
        pooled: the variance over all groups, with `total_df` residual degrees of freedom.
    """

    group: Ints
    variance: Array
    df: Array
    pooled: float
    total_df: float

    def estimates(self, linear: Array, y: Array) -> "Estimates":
        """The estimates `linear` (P, T) @ y (T), with what is known of their noise."""
        parts = np.zeros((len(self.variance), len(linear), len(linear)))
        for number, variance in enumerate(self.variance):
            own = linear[:, self.group == number]
            parts[number] = variance * (own @ own.T)
        return Estimates(
            values=linear @ y,
            parts=parts,
            df=self.df,
            total_df=self.total_df,
            metric=linear @ linear.T,
        )

    def shrunk(self, prior_df: float) -> "Noise":
        """Variances drawn towards the pooled one, as if that were known with `prior_df`.

        Source: Smyth 2004, limma, with a given prior.
        """
        df = self.df + prior_df
        variance = (self.df * self.variance + prior_df * self.pooled) / df
        return Noise(
            group=self.group, variance=variance, df=df, pooled=self.pooled, total_df=self.total_df
        )


def noise_of(residual: Array, share_of_df: Array, group: Ints) -> Noise:
    """The noise of each group from residuals (T) and each trial's share (T) of the residual df.

    The shares are the diagonal of I - H, H being the hat matrix, and sum to the residual df.
    Source: Horn, Horn & Duncan 1975 (almost unbiased estimates of unequal variances).
    """
    num_groups = int(group.max()) + 1
    df = np.bincount(group, share_of_df, num_groups)
    squares = np.bincount(group, residual**2, num_groups)
    total = float(df.sum())
    pooled = float(squares.sum() / total) if total > 1e-9 else 0.0
    is_known = df >= _LEAST_DF
    own = np.divide(squares, df, out=np.full(num_groups, pooled), where=is_known)
    return Noise(
        group=group,
        variance=np.maximum(own, _LEAST_VARIANCE * pooled),
        df=np.where(is_known, np.maximum(df, _LEAST_COUNTED_DF), max(total, 1.0)),
        pooled=pooled,
        total_df=total,
    )


def equal_noise(residual: Array, total_df: float) -> Noise:
    """One variance for all trials."""
    pooled = float(residual @ residual / total_df) if total_df > 0 else 0.0
    return Noise(
        group=np.zeros(len(residual), dtype=np.int64),
        variance=np.array([pooled]),
        df=np.array([max(total_df, 1.0)]),
        pooled=pooled,
        total_df=total_df,
    )


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """Estimates with the covariance parts of each noise group.

    Attributes:
        values: (P).
        parts: (K, P, P) covariance, a part for each noise group; the covariance is their sum.
        df: (K) degrees of freedom of each group's variance.
        total_df: residual degrees of freedom.
        metric: (P, P) covariance under noise of variance 1 in every trial.
    """

    values: Array
    parts: Array
    df: Array
    total_df: float
    metric: Array

    @cached_property
    def covariance(self) -> Array:
        """(P, P)."""
        return np.asarray(self.parts.sum(axis=0), dtype=np.float64)

    def contrasts(self, rows: Array) -> tuple[Array, Array, Array]:
        """Values (R), standard errors (R) and Satterthwaite's df (R) of contrasts (R, P)."""
        parts = np.einsum("rp,kpq,rq->rk", rows, self.parts, rows, optimize=True)
        variance = np.maximum(parts.sum(axis=1), 0.0)
        spread = (parts**2 / self.df).sum(axis=1)
        df = np.divide(
            variance**2, spread, out=np.full(len(rows), self.total_df), where=spread > 1e-300
        )
        return rows @ self.values, np.sqrt(variance), np.clip(df, 1.0, max(self.total_df, 1.0))

    def mapped(self, rows: Array) -> "Estimates":
        """The contrasts (R, P) as estimates of their own."""
        return Estimates(
            values=rows @ self.values,
            parts=np.einsum("rp,kpq,sq->krs", rows, self.parts, rows, optimize=True),
            df=self.df,
            total_df=self.total_df,
            metric=rows @ self.metric @ rows.T,
        )

    def f_test(self, rows: Array) -> float:
        """The p-value of all contrasts (R, P) being 0 at once; 1 where nothing can be tested."""
        own = self.mapped(rows)
        values, vectors = np.linalg.eigh(own.metric)
        is_kept = values > 1e-9 * max(float(values.max(initial=0.0)), 1e-300)
        rank = int(is_kept.sum())
        if rank == 0 or self.total_df <= 0:
            return 1.0
        # Orthonormal under equal noise, so that the statistic then is the classical F.
        turned = own.mapped((vectors[:, is_kept] / np.sqrt(values[is_kept])).T)
        traces = np.trace(turned.parts, axis1=1, axis2=2)
        trace = float(traces.sum())
        if trace <= 0:
            return 1.0
        squares = np.einsum("kpq,kpq->k", turned.parts, turned.parts)
        whole = float(np.sum(turned.covariance**2))
        # The square of an estimated variance is too large by the factor 1 + 2 / df.
        excess = 2 / (self.df + 2)
        upper = trace**2 - float(excess @ traces**2)
        lower = whole - float(excess @ squares)
        numerator_df = min(max(upper / lower, 1.0), rank) if lower > 0 else rank
        df = min(max(trace**2 / float((traces**2 / self.df).sum()), 1.0), self.total_df)
        ratio = float(turned.values @ turned.values) / trace
        return float(special.fdtrc(numerator_df, df, ratio))


def t_quantile(df: Array | float, level: float) -> Array:
    """Student's t quantile, elementwise over `df`."""
    return np.asarray(special.stdtrit(df, level), dtype=np.float64)
