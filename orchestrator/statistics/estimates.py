"""Compute linear estimates with unequal noise: contrasts, t tests and F tests.

Every estimate is linear in the trial values. A trial's noise has the variance of its noise group
(its weight, if weights have several trials). The variance of a contrast is a sum of one part per
group, each with the group's degrees of freedom. One contrast is tested by Student's t with
Satterthwaite's df, several at once by Brown and Forsythe's F* with Box's df. With a single noise
group both equal the classical tests of least squares.

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

# Maximum number of contrasts times trials in memory.
_MAX_CHUNK_SIZE = 4_000_000
# Minimum variance of a weight, as a share of the mean variance, because a few trials may agree by
# chance.
_MIN_VARIANCE_SHARE = 0.1
# A noise group with fewer df than this uses the pooled variance of all groups.
_MIN_GROUP_DF = 0.25
# Minimum df used by tests. With two seeds, a weight has less than one df, which gives tests almost
# no power. With this minimum, tests keep their size, even under threefold noise
# (docs/design-log.md).
_MIN_COUNTED_DF = 4 / 3


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The noise variance of a single trial, by noise group.

    Attributes:
        group: (T) noise group of each trial.
        variance, df: (K) variance and degrees of freedom of each group.
        pooled: variance over all groups, with `total_df` residual degrees of freedom.
    """

    group: Ints
    variance: Array
    df: Array
    pooled: float
    total_df: float

    @cached_property
    def members(self) -> Array:
        """Indicators (T, K): 1 if the trial is in the noise group."""
        return np.eye(len(self.variance))[self.group]

    def estimates(self, linear: Array, y: Array) -> "Estimates":
        """Return the estimates `linear` (P, T) @ y (T) with this noise."""
        return Estimates(values=linear @ y, linear=linear, noise=self)

    def shrunk(self, prior_df: float) -> "Noise":
        """Return variances shrunk towards the pooled variance, which counts as `prior_df` df.

        Source: Smyth 2004, limma, with a given prior.
        """
        df = self.df + prior_df
        variance = (self.df * self.variance + prior_df * self.pooled) / df
        return Noise(
            group=self.group, variance=variance, df=df, pooled=self.pooled, total_df=self.total_df
        )


def estimate_noise(residual: Array, share_of_df: Array, group: Ints) -> Noise:
    """Estimate each group's noise from residuals (T) and each trial's share (T) of the residual df.

    The shares are the diagonal of I - H, with H the hat matrix, and sum to the residual df.

    Source: Horn, Horn & Duncan 1975 (almost unbiased estimates of unequal variances).
    """
    num_groups = int(group.max()) + 1
    df = np.bincount(group, share_of_df, num_groups)
    squares = np.bincount(group, residual**2, num_groups)
    total = float(df.sum())
    pooled = float(squares.sum() / total) if total > 1e-9 else 0.0
    is_known = df >= _MIN_GROUP_DF
    own = np.divide(squares, df, out=np.full(num_groups, pooled), where=is_known)
    return Noise(
        group=group,
        variance=np.maximum(own, _MIN_VARIANCE_SHARE * pooled),
        df=np.where(is_known, np.maximum(df, _MIN_COUNTED_DF), max(total, 1.0)),
        pooled=pooled,
        total_df=total,
    )


def equal_noise(residual: Array, total_df: float) -> Noise:
    """Return noise with one variance for all trials."""
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
    """Estimates (P) that are linear in the trial values (T): `linear` (P, T) @ values."""

    values: Array
    linear: Array
    noise: Noise

    @cached_property
    def covariance(self) -> Array:
        """Covariance (P, P) of the estimates."""
        variance = self.noise.variance[self.noise.group]
        return np.asarray((self.linear * variance) @ self.linear.T)

    def contrasts(self, rows: Array) -> tuple[Array, Array, Array]:
        """Return values (R), standard errors (R) and Satterthwaite's df (R) of contrasts (R, P)."""
        step = max(1, _MAX_CHUNK_SIZE // max(self.linear.shape[1], 1))
        parts = np.vstack(
            [self._parts(rows[start : start + step]) for start in range(0, len(rows), step)]
        )
        variance = parts.sum(axis=1)
        spread = (parts**2 / self.noise.df).sum(axis=1)
        total = self.noise.total_df
        df = np.divide(variance**2, spread, out=np.full(len(rows), total), where=spread > 0)
        return rows @ self.values, np.sqrt(variance), np.clip(df, 1.0, max(total, 1.0))

    def _parts(self, rows: Array) -> Array:
        """Return (R, K): each noise group's part of the variance of contrasts (R, P)."""
        squares = (rows @ self.linear) ** 2
        return np.asarray((squares @ self.noise.members) * self.noise.variance)

    def transform(self, rows: Array) -> "Estimates":
        """Return the contrasts (R, P) as new estimates."""
        return Estimates(values=rows @ self.values, linear=rows @ self.linear, noise=self.noise)

    def f_statistic(self, rows: Array) -> tuple[float, float, float]:
        """Return (F*, numerator df, denominator df) for the hypothesis that all contrasts are 0.

        Contrasts are (R, P). F* has expectation 1 under the hypothesis. The result is (0, 1, 1) if
        nothing can be tested.
        """
        noise = self.noise
        own = rows @ self.linear
        values, vectors = np.linalg.eigh(own @ own.T)
        is_kept = values > 1e-9 * max(float(values.max(initial=0.0)), 1e-300)
        rank = int(is_kept.sum())
        if rank == 0 or noise.total_df <= 0 or noise.pooled <= 0:
            return 0.0, 1.0, 1.0
        # The whitened contrasts are orthonormal under equal noise, which makes the statistic the
        # classical F.
        whitening = (vectors[:, is_kept] / np.sqrt(values[is_kept])).T
        whitened = whitening @ own
        traces = ((whitened**2).sum(axis=0) @ noise.members) * noise.variance
        trace = float(traces.sum())
        squares = np.zeros(len(noise.variance))
        for number in range(len(squares)):
            part = whitened[:, noise.group == number]
            squares[number] = np.sum((part @ part.T) ** 2) * noise.variance[number] ** 2
        covariance = (whitened * noise.variance[noise.group]) @ whitened.T
        # The square of an estimated variance is biased upwards by the factor 1 + 2 / df.
        excess = 2 / (noise.df + 2)
        upper = trace**2 - float(excess @ traces**2)
        lower = float(np.sum(covariance**2)) - float(excess @ squares)
        numerator_df = min(max(upper / lower, 1.0), rank) if lower > 0 else float(rank)
        df = trace**2 / float((traces**2 / noise.df).sum())
        effect = whitening @ (rows @ self.values)
        return float(effect @ effect) / trace, numerator_df, min(max(df, 1.0), noise.total_df)

    def f_test(self, rows: Array) -> float:
        """Return the p-value of the hypothesis that all contrasts (R, P) are 0; 1 if untestable."""
        ratio, numerator_df, df = self.f_statistic(rows)
        return float(special.fdtrc(numerator_df, df, ratio))


def t_quantile(df: Array | float, level: float) -> Array:
    """Return Student's t quantile, elementwise over `df`."""
    return np.asarray(special.stdtrit(df, level), dtype=np.float64)
