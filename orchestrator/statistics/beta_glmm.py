"""Beta regression with random intercepts, by the Laplace approximation: the paper's own model.

A score y in (0, 1) has a beta distribution with mean expit(X beta + Z b) and precision phi, and
b ~ N(0, sd^2) within each set of random intercepts. No well-kept Python library fits it:
statsmodels' BetaModel has no random effects. Coefficients agree with R's glmmTMB.

Shapes: N scores, P fixed terms, Q random intercepts over all sets.
Source: Ferrari & Cribari-Neto 2004 (beta regression); Kristensen et al. 2016 (TMB, Laplace).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from trainers.errors import InputError, Problem

Array = NDArray[np.float64]

_MAX_MODE_STEPS = 100
_MAX_POLISH_STEPS = 8
_MODE_TOLERANCE = 1e-10
_HESSIAN_STEP = 1e-4
# Below exp(-7) = 0.0009 on the logit scale a random intercept is none; its logarithm has no end.
_SMALLEST_LOG_SD = -7.0
_LARGEST_ETA = 30.0
# Of log phi: a precision under 0.05 or over 10^7 is no score's.
_LOG_PRECISIONS = (-3.0, 16.0)


@dataclass(frozen=True, kw_only=True)
class BetaFit:
    """A fitted beta regression.

    `coefficients`, `standard_errors` (P): on the logit scale. `precision`: phi; the variance of a
    score is mean (1 - mean) / (1 + phi). `random_sds`: one for each set of random intercepts.
    `p_values` (P): Wald's, as software prints them; see docs/analysis.md for what they are worth.
    """

    coefficients: Array
    standard_errors: Array
    covariance: Array
    precision: float
    random_sds: Array
    log_likelihood: float
    converged: bool

    @property
    def p_values(self) -> Array:
        """Two-sided, of each coefficient being 0, from the normal distribution."""
        ratio = np.abs(self.coefficients / self.standard_errors)
        return np.asarray(2 * special.ndtr(-ratio), dtype=np.float64)


@dataclass(frozen=True)
class _Slopes:
    """Derivatives of the log density by the linear predictor eta (1 to 3) and by phi; each (N)."""

    density: Array
    by_eta: Array
    by_eta2: Array
    by_eta3: Array
    fisher: Array
    by_phi: Array
    by_eta_phi: Array
    by_eta2_phi: Array


def _slopes(eta: Array, phi: float, log_y: Array, log_1_y: Array) -> _Slopes:
    # A search may try predictors at which a mean rounds to 0 or 1 and the density has no value.
    eta = np.clip(eta, -_LARGEST_ETA, _LARGEST_ETA)
    mean = special.expit(eta)
    rest = special.expit(-eta)
    a, b = mean * phi, rest * phi
    by_1 = mean * rest
    by_2 = by_1 * (rest - mean)
    by_3 = by_2 * (rest - mean) - 2 * by_1**2
    digamma_a, digamma_b = special.psi(a), special.psi(b)
    tri_a, tri_b = special.polygamma(1, a), special.polygamma(1, b)
    tetra_a, tetra_b = special.polygamma(2, a), special.polygamma(2, b)
    tri = tri_a + tri_b
    surprise = log_y - log_1_y - digamma_a + digamma_b
    shift = mean * tri_a - rest * tri_b
    fisher = (phi * by_1) ** 2 * tri
    return _Slopes(
        density=special.gammaln(phi)
        - special.gammaln(a)
        - special.gammaln(b)
        + (a - 1) * log_y
        + (b - 1) * log_1_y,
        by_eta=phi * by_1 * surprise,
        by_eta2=phi * by_2 * surprise - fisher,
        by_eta3=phi * by_3 * surprise
        - 3 * phi**2 * by_1 * by_2 * tri
        - (phi * by_1) ** 3 * (tetra_a - tetra_b),
        fisher=fisher,
        by_phi=special.psi(phi)
        - mean * digamma_a
        - rest * digamma_b
        + mean * log_y
        + rest * log_1_y,
        by_eta_phi=by_1 * surprise - phi * by_1 * shift,
        by_eta2_phi=by_2 * surprise
        - phi * by_2 * shift
        - 2 * phi * by_1**2 * tri
        - (phi * by_1) ** 2 * (mean * tetra_a + rest * tetra_b),
    )


class _Laplace:
    """The Laplace-approximated log likelihood with its gradient, both negated.

    Parameters: P coefficients, log phi, the log of the sd of each set. The random intercepts are
    sd u with u ~ N(0, 1), whose mode is found anew for each set of parameters.
    """

    def __init__(self, y: Array, terms: Array, levels: Sequence[NDArray[np.int64]]) -> None:
        self._log_y, self._log_1_y = np.log(y), np.log1p(-y)
        self._terms = terms
        blocks = [np.eye(int(each.max()) + 1)[each] for each in levels]
        self._choice = np.hstack(blocks) if blocks else np.zeros((len(y), 0))
        self._set_of = np.repeat(np.arange(len(blocks)), [block.shape[1] for block in blocks])
        self._sets = len(blocks)
        self._mode = np.zeros(self._choice.shape[1])

    def __call__(self, parameters: Array) -> tuple[float, Array]:
        num_terms = self._terms.shape[1]
        coefficients, phi = parameters[:num_terms], float(np.exp(parameters[num_terms]))
        scaled = self._choice * np.exp(parameters[num_terms + 1 :])[self._set_of]
        fixed = self._terms @ coefficients
        mode = self._find_mode(fixed, scaled, phi)
        slopes = _slopes(fixed + scaled @ mode, phi, self._log_y, self._log_1_y)
        weight = -slopes.by_eta2
        curvature = np.eye(len(mode)) + scaled.T @ (weight[:, None] * scaled)
        sign, log_det = np.linalg.slogdet(curvature)
        if sign <= 0:
            return np.inf, np.zeros_like(parameters)
        value = float(slopes.density.sum() - 0.5 * mode @ mode - 0.5 * log_det)
        inverse = np.asarray(np.linalg.inv(curvature), dtype=np.float64)
        gradient = self._gradient(slopes, scaled, mode, inverse, phi)
        return -value, -gradient

    def _find_mode(self, fixed: Array, scaled: Array, phi: float) -> Array:
        """Fisher scoring with halved steps: the observed curvature may not be positive far off."""
        mode = self._mode
        slopes = _slopes(fixed + scaled @ mode, phi, self._log_y, self._log_1_y)
        value = slopes.density.sum() - 0.5 * mode @ mode
        for _ in range(_MAX_MODE_STEPS):
            slope = scaled.T @ slopes.by_eta - mode
            if not len(mode) or np.abs(slope).max() < _MODE_TOLERANCE:
                break
            information = np.eye(len(mode)) + scaled.T @ (slopes.fisher[:, None] * scaled)
            step = np.linalg.solve(information, slope)
            for halving in range(30):
                tried = mode + step * 0.5**halving
                slopes = _slopes(fixed + scaled @ tried, phi, self._log_y, self._log_1_y)
                found = slopes.density.sum() - 0.5 * tried @ tried
                if found >= value - 1e-9 * abs(value):
                    break
            mode, value = tried, found
        self._mode = mode
        return mode

    def _gradient(
        self, slopes: _Slopes, scaled: Array, mode: Array, inverse: Array, phi: float
    ) -> Array:
        weight = -slopes.by_eta2
        spread = np.einsum("nq,qr,nr->n", scaled, inverse, scaled, optimize=True)
        # How -log|H| / 2 moves with each score's predictor, and with the mode through it.
        drift = 0.5 * spread * slopes.by_eta3
        pull = inverse @ (scaled.T @ drift)
        by_eta = slopes.by_eta + drift - weight * (scaled @ pull)
        by_phi = (
            slopes.by_phi.sum()
            + 0.5 * spread @ slopes.by_eta2_phi
            + pull @ (scaled.T @ slopes.by_eta_phi)
        )
        by_log_sd = np.zeros(self._sets)
        for each in range(self._sets):
            own = self._set_of == each
            moved = scaled[:, own] @ mode[own]
            by_log_sd[each] = (
                by_eta @ moved
                + pull[own] @ mode[own]
                - (own.sum() - np.trace(inverse[np.ix_(own, own)]))
            )
        return np.concatenate([self._terms.T @ by_eta, [phi * by_phi], by_log_sd])


def fit_beta_glmm(
    y: Sequence[float] | Array,
    terms: Array,
    intercepts: Sequence[Sequence[int] | NDArray[np.int64]] = (),
) -> BetaFit:
    """The maximum of the Laplace-approximated likelihood; standard errors from its curvature.

    Args:
        y: N scores in (0, 1), both ends excluded.
        terms: (N, P), a column of ones for the intercept among them.
        intercepts: for each set of random intercepts, N whole numbers from 0 that say whose it is.

    Raises:
        InputError: a score is not inside (0, 1), or the columns of `terms` depend on each other.
    """
    scores = np.asarray(y, dtype=np.float64)
    terms = np.asarray(terms, dtype=np.float64)
    _check(scores, terms)
    levels = [np.unique(each, return_inverse=True)[1].astype(np.int64) for each in intercepts]
    objective = _Laplace(scores, terms, levels)
    plain = np.linalg.lstsq(terms, special.logit(scores), rcond=None)[0]
    start = np.concatenate([plain, [np.log(20.0)], np.full(len(levels), np.log(0.3))])
    bounds = [(None, None)] * terms.shape[1] + [_LOG_PRECISIONS]
    bounds += [(_SMALLEST_LOG_SD, 3.0)] * len(levels)
    found = optimize.minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 500, "ftol": 1e-12, "gtol": 1e-7},
    )
    best, hessian, steepest = _polish(objective, np.asarray(found.x), terms.shape[1] + 1)
    value, _ = objective(best)
    inverse = np.asarray(np.linalg.pinv(hessian), dtype=np.float64)
    covariance = inverse[: terms.shape[1], : terms.shape[1]]
    return BetaFit(
        coefficients=best[: terms.shape[1]],
        standard_errors=np.sqrt(np.diag(covariance)),
        covariance=covariance,
        precision=float(np.exp(best[terms.shape[1]])),
        random_sds=np.exp(best[terms.shape[1] + 1 :]),
        log_likelihood=-value,
        converged=steepest < 1e-3,
    )


def _polish(objective: _Laplace, best: Array, num_free: int) -> tuple[Array, Array, float]:
    """Newton's steps from `best`; an sd at its lower bound stays there.

    Returns the end, the curvature there (zero for what is at a bound) and the largest slope.
    """
    free = np.arange(len(best)) < num_free
    free[num_free:] = best[num_free:] > _SMALLEST_LOG_SD + 1e-6
    for _ in range(_MAX_POLISH_STEPS):
        value, gradient = objective(best)
        hessian = _hessian(objective, best, free)
        steepest = float(np.abs(gradient[free]).max())
        if steepest < 1e-7:
            break
        tried = best - np.linalg.pinv(hessian) @ np.where(free, gradient, 0.0)
        if not objective(tried)[0] < value:
            break
        best = tried
    return best, hessian, steepest


def _hessian(objective: _Laplace, at: Array, free: NDArray[np.bool_]) -> Array:
    """Central differences of the analytic gradient."""
    hessian = np.zeros((len(at), len(at)))
    for each in np.flatnonzero(free):
        step = np.zeros_like(at)
        step[each] = _HESSIAN_STEP
        hessian[each] = (objective(at + step)[1] - objective(at - step)[1]) / (2 * _HESSIAN_STEP)
    hessian[:, ~free] = 0
    return np.asarray((hessian + hessian.T) / 2)


def _check(scores: Array, terms: Array) -> None:
    outside = np.flatnonzero(~((scores > 0) & (scores < 1)))
    if len(outside):
        raise InputError(
            Problem(
                message=f"a score must be inside (0, 1), got {scores[outside[0]]:g}",
                where=f"score {outside[0] + 1} of {len(scores)}",
                fix="divide percentages by 100, and move 0 and 1 inward by half an item",
            )
        )
    if np.linalg.matrix_rank(terms) < terms.shape[1]:
        raise InputError(
            Problem(
                message=f"{len(scores)} scores cannot tell {terms.shape[1]} fixed terms apart",
                fix="try at least three weights, and drop terms that repeat others",
            )
        )
