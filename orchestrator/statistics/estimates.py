"""Linear estimates whose noise may differ between weights: contrasts, t and F tests.

Every estimate here is linear in the trial values, and the noise of a trial has the variance of its
noise group (its weight, where weights have several trials). The variance of a contrast is then a
sum of one part per group, each known with the group's own degrees of freedom. Student's t with
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

# Contrasts times trials that are held in memory at once.
_MOST_AT_ONCE = 4_000_000
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

    @cached_property
    def members(self) -> Array:
        """(T, K): 1 where a trial is of a noise group."""
        return np.eye(len(self.variance))[self.group]

    def estimates(self, linear: Array, y: Array) -> "Estimates":
        """The estimates `linear` (P, T) @ y (T), with what is known of their noise."""
        return Estimates(values=linear @ y, linear=linear, noise=self)

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
    """Estimates (P) that are linear in the trial values (T): `linear` (P, T) times them."""

    values: Array
    linear: Array
    noise: Noise

    @cached_property
    def covariance(self) -> Array:
        """(P, P)."""
        variance = self.noise.variance[self.noise.group]
        return np.asarray((self.linear * variance) @ self.linear.T)

    def contrasts(self, rows: Array) -> tuple[Array, Array, Array]:
        """Values (R), standard errors (R) and Satterthwaite's df (R) of contrasts (R, P)."""
        step = max(1, _MOST_AT_ONCE // max(self.linear.shape[1], 1))
        parts = np.vstack(
            [self._parts(rows[start : start + step]) for start in range(0, len(rows), step)]
        )
        variance = parts.sum(axis=1)
        spread = (parts**2 / self.noise.df).sum(axis=1)
        total = self.noise.total_df
        df = np.divide(variance**2, spread, out=np.full(len(rows), total), where=spread > 0)
        return rows @ self.values, np.sqrt(variance), np.clip(df, 1.0, max(total, 1.0))

    def _parts(self, rows: Array) -> Array:
        """(R, K): what each noise group adds to the variance of contrasts (R, P)."""
        squares = (rows @ self.linear) ** 2
        return np.asarray((squares @ self.noise.members) * self.noise.variance)

    def mapped(self, rows: Array) -> "Estimates":
        """The contrasts (R, P) as estimates of their own."""
        return Estimates(values=rows @ self.values, linear=rows @ self.linear, noise=self.noise)

    def f_ratio(self, rows: Array) -> tuple[float, float, float]:
        """F* of all contrasts (R, P) being 0 at once, with numerator and denominator df.

        Its expectation is 1 where they are; (0, 1, 1) where nothing can be tested.
        """
        noise = self.noise
        own = rows @ self.linear
        values, vectors = np.linalg.eigh(own @ own.T)
        is_kept = values > 1e-9 * max(float(values.max(initial=0.0)), 1e-300)
        rank = int(is_kept.sum())
        if rank == 0 or noise.total_df <= 0 or noise.pooled <= 0:
            return 0.0, 1.0, 1.0
        # Orthonormal under equal noise, so that the statistic then is the classical F.
        turn = (vectors[:, is_kept] / np.sqrt(values[is_kept])).T
        turned = turn @ own
        traces = ((turned**2).sum(axis=0) @ noise.members) * noise.variance
        trace = float(traces.sum())
        squares = np.zeros(len(noise.variance))
        for number in range(len(squares)):
            part = turned[:, noise.group == number]
            squares[number] = np.sum((part @ part.T) ** 2) * noise.variance[number] ** 2
        covariance = (turned * noise.variance[noise.group]) @ turned.T
        # The square of an estimated variance is too large by the factor 1 + 2 / df.
        excess = 2 / (noise.df + 2)
        upper = trace**2 - float(excess @ traces**2)
        lower = float(np.sum(covariance**2)) - float(excess @ squares)
        numerator_df = min(max(upper / lower, 1.0), rank) if lower > 0 else float(rank)
        df = trace**2 / float((traces**2 / noise.df).sum())
        effect = turn @ (rows @ self.values)
        return float(effect @ effect) / trace, numerator_df, min(max(df, 1.0), noise.total_df)

    def f_test(self, rows: Array) -> float:
        """The p-value of all contrasts (R, P) being 0 at once; 1 where nothing can be tested."""
        ratio, numerator_df, df = self.f_ratio(rows)
        return float(special.fdtrc(numerator_df, df, ratio))


def t_quantile(df: Array | float, level: float) -> Array:
    """Student's t quantile, elementwise over `df`."""
    return np.asarray(special.stdtrit(df, level), dtype=np.float64)
