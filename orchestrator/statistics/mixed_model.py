"""A linear mixed model with a random intercept for each trial, by REML, with honest freedom.

    y = X beta + u[trial] + e,   var u = ratio sigma^2,   var e = sigma^2 / weight

All scores of a checkpoint share the luck of its seed, so that a trial, not a score, is what a
setting is repeated by. The ratio may be negative (scores of a trial may differ more than trials
do): then complete data give exactly the regression of trial means, with Student's t on as many
degrees of freedom as trials leave.

Shapes: N scores, P fixed terms, T trials.
Source: Satterthwaite 1946; Fai & Cornelius 1996, as in R's lmerTest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Array = NDArray[np.float64]

_STEP = 1e-3
_LEAST_FREEDOM = 1.0
_LEAST_SHARE = 1e-12
_LEAST_SQUARES = 1e-18
# Trial variance on a log scale, relative to the residual one: from nearly none to e^14 times it.
_WIDEST = (-12.0, 14.0)


@dataclass(frozen=True)
class TrialFit:
    """The fit at the REML estimate of the variances; `covariance` is that of the coefficients."""

    coefficients: Array
    covariance: Array
    residual_variance: float
    trial_variance: float
    _problem: "_Reml"
    _log_scale: float

    def estimate(self, contrast: Array) -> tuple[float, float, float]:
        """contrast . beta, its standard error and its degrees of freedom."""
        value = float(contrast @ self.coefficients)
        variance = float(contrast @ self.covariance @ contrast)
        return value, variance**0.5, self.freedom(contrast)

    def freedom(self, contrast: Array) -> float:
        """Satterthwaite's degrees of freedom of a contrast."""
        most = float(self._problem.num_scores - self._problem.num_terms)
        if self._problem.is_plain:
            return most
        at = self._log_scale
        own = float(contrast @ self.covariance @ contrast)
        ahead, behind = (
            self._problem.variance(at + step, self.residual_variance, contrast)
            for step in (_STEP, -_STEP)
        )
        slope = np.array([own, (ahead - behind) / (2 * _STEP)])
        spread = float(slope @ self._variance_of_variances @ slope)
        found = 2 * own**2 / spread if spread > 0 else most
        return min(max(found, _LEAST_FREEDOM), most)

    def f_test(self, contrasts: Array) -> tuple[float, float]:
        """The p-value of all rows of `contrasts` being 0 at once, and its freedom."""
        covariance = contrasts @ self.covariance @ contrasts.T
        values, vectors = np.linalg.eigh(covariance)
        turned = vectors.T @ contrasts
        ratios = (turned @ self.coefficients) ** 2 / values
        each = np.array([self.freedom(one) for one in turned])
        rank = len(contrasts)
        excess = float(np.sum(np.where(each > 2, each / np.maximum(each - 2, 1e-9), 0.0)))
        shared = 2 * excess / (excess - rank) if excess > rank and each.min() > 2 else each.min()
        freedom = float(min(max(shared, _LEAST_FREEDOM), each.max()))
        return float(special.fdtrc(rank, freedom, ratios.mean())), freedom

    @cached_property
    def _variance_of_variances(self) -> Array:
        """(2, 2), of log sigma^2 and of the log scale of the trials' variance."""
        problem, at, sigma2 = self._problem, self._log_scale, self.residual_variance
        steps = (at - _STEP, at, at + _STEP)
        parts = [problem.parts(step) for step in steps]
        deviance = [rest + rss / sigma2 for rest, rss, _, _ in parts]
        hessian = np.empty((2, 2))
        hessian[0, 0] = problem.num_scores - problem.num_terms
        hessian[0, 1] = hessian[1, 0] = -(parts[2][1] - parts[0][1]) / (2 * _STEP * sigma2)
        hessian[1, 1] = (deviance[2] - 2 * deviance[1] + deviance[0]) / _STEP**2
        return np.asarray(2 * np.linalg.pinv(hessian, hermitian=True))


class _Reml:
    """The restricted likelihood of the trials' variance, all else profiled out."""

    def __init__(self, y: Array, terms: Array, trial: NDArray[np.int64], weights: Array) -> None:
        self.num_scores, self.num_terms = terms.shape
        both = np.column_stack([terms, y])
        weighted = both * weights[:, None]
        self._within = both.T @ weighted
        num_trials = int(trial.max()) + 1
        self._sums = np.zeros((num_trials, both.shape[1]))
        np.add.at(self._sums, trial, weighted)
        self._mass = np.bincount(trial, weights, num_trials)
        self._most = float(self._mass.max())
        # One score a trial, each as sure as the next: trial and residual cannot be told apart.
        is_single = num_trials == self.num_scores
        self.is_plain = is_single and float(np.ptp(weights)) <= 1e-9 * self._most
        self.bounds = (0.0, _WIDEST[1]) if is_single else _WIDEST

    def parts(self, log_scale: float) -> tuple[float, float, Array, Array]:
        """The deviance less RSS / sigma^2, the RSS, the coefficients and X' V^-1 X."""
        ratio = np.expm1(log_scale) / self._most
        shrink = ratio / (1 + ratio * self._mass)
        moments = self._within - self._sums.T @ (shrink[:, None] * self._sums)
        cross, target = moments[:-1, :-1], moments[:-1, -1]
        lower = np.linalg.cholesky(cross)
        half = np.linalg.solve(lower, target)
        coefficients = np.linalg.solve(lower.T, half)
        # Scores that agree to the last digit, as counts of few items may, leave no noise at all.
        least = _LEAST_SHARE * float(self._within[-1, -1]) + _LEAST_SQUARES
        rss = max(float(moments[-1, -1] - half @ half), least)
        log_dets = np.log1p(ratio * self._mass).sum() + 2 * np.log(np.diag(lower)).sum()
        return float(log_dets), rss, coefficients, cross

    def variance(self, log_scale: float, sigma2: float, contrast: Array) -> float:
        """That of a contrast of the coefficients."""
        cross = self.parts(log_scale)[3]
        return float(sigma2 * contrast @ np.linalg.solve(cross, contrast))

    def deviance(self, log_scale: float) -> float:
        """-2 log restricted likelihood, up to a constant, sigma^2 profiled out."""
        log_dets, rss, _, _ = self.parts(log_scale)
        return log_dets + float((self.num_scores - self.num_terms) * np.log(rss))

    def best(self) -> float:
        """The log scale at the lowest deviance: the lowest of a grid, then Brent's search."""
        if self.is_plain:
            return 0.0
        grid = np.linspace(*self.bounds, 7)
        lowest = int(np.argmin([self.deviance(at) for at in grid]))
        low, high = grid[max(lowest - 1, 0)], grid[min(lowest + 1, len(grid) - 1)]
        found = optimize.minimize_scalar(
            self.deviance, bounds=(low, high), method="bounded", options={"xatol": 1e-4}
        )
        return float(found.x)


def fit_trials(
    y: Array, terms: Array, trial: Sequence[int] | NDArray[np.int64], weights: Array | None = None
) -> TrialFit:
    """The fit of `y` (N) to `terms` (N, P); `trial` (N) counts from 0.

    `weights` say how sure scores are relative to each other, such as 1 / standard error^2; how
    sure they are is estimated, because the items' part of a standard error is the same in all
    trials and is no noise between them.

    Raises:
        ValueError: terms depend on each other, or there are no more scores than terms.
    """
    y, terms = np.asarray(y, dtype=np.float64), np.asarray(terms, dtype=np.float64)
    if len(y) <= terms.shape[1] or np.linalg.matrix_rank(terms) < terms.shape[1]:
        raise ValueError(f"{len(y)} scores leave nothing to fit {terms.shape[1]} terms by")
    given = np.ones_like(y) if weights is None else np.asarray(weights, dtype=np.float64)
    levels = np.unique(np.asarray(trial), return_inverse=True)[1].astype(np.int64)
    problem = _Reml(y, terms, levels, given / given.mean())
    log_scale = problem.best()
    _, rss, coefficients, cross = problem.parts(log_scale)
    sigma2 = rss / (len(y) - terms.shape[1])
    return TrialFit(
        coefficients=coefficients,
        covariance=sigma2 * np.linalg.inv(cross),
        residual_variance=sigma2,
        trial_variance=sigma2 * float(np.expm1(log_scale)) / problem._most,
        _problem=problem,
        _log_scale=log_scale,
    )
