"""Compute the Pareto front over the groups: tried weights that no other tried weight dominates.

Each weight has a probability of being on the front.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from orchestrator.statistics.trial_points import OVERALL, Trials
from orchestrator.statistics.weight_analysis import Method
from orchestrator.statistics.weight_effects import (
    df_of_points,
    fit_effects,
    means_of_points,
)

Array = NDArray[np.float64]

_DRAWS = 2000
# Maximum number of weights; more are thinned, because each draw compares all pairs of weights.
MAX_WEIGHTS = 40


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """A tried weight: fitted points above the reference by group, and its place on the front.

    `probability` is the share of posterior draws in which no other tried weight is as good in all
    groups and better in one; None if too few trials remain.
    """

    plw: float
    points: dict[str, float]
    is_on_front: bool
    probability: float | None


def pareto_front(trials: Trials, method: Method, seed: int = 0) -> list[FrontPoint]:
    """Return all tried weights in order; empty if the groups cannot be estimated.

    More than 40 weights are thinned to 40 that are spread over w_p. The groups are drawn jointly
    from the posterior under a flat prior, with the covariance of the trials' values.

    Source: Gelman et al., Bayesian Data Analysis, 3.6 and 14.2.

    Args:
        method: method of the leading verdict; with any other than `means`, a curve is used.
    """
    complete = np.flatnonzero(trials.is_complete)
    w_p = trials.w_p[complete]
    plws, at = np.unique(trials.plw[complete]), np.unique(w_p)
    if len(at) < 2 or (method == "means" and len(at) > MAX_WEIGHTS):
        return []
    if len(at) > MAX_WEIGHTS:
        evenly = np.linspace(at[0], at[-1], MAX_WEIGHTS)
        kept = np.unique([np.abs(at - place).argmin() for place in evenly])
        plws, at = plws[kept], at[kept]
    if method == "means":
        shape, contrasts = np.eye(len(at))[np.searchsorted(at, w_p)][:, 1:], np.eye(len(at))[:, 1:]
    else:
        shape = np.column_stack([w_p, w_p**2])
        contrasts = np.column_stack([at - at[0], at**2 - at[0] ** 2])
    effects = fit_effects(trials, OVERALL)
    if effects is None:
        return []
    terms, values = (
        effects.nuisance.residualize(each) for each in (shape, trials.values[effects.present])
    )
    coefficients, _, rank, _ = np.linalg.lstsq(terms, values, rcond=None)
    residual = values - terms @ coefficients
    df = len(terms) - effects.nuisance.num_terms - int(rank)
    if effects.point is not None:
        residual = means_of_points(residual, effects.point)
        of_points = df_of_points(effects.point, len(effects.cells), effects.nuisance, int(rank))
        df = min(df, int(of_points))
    if df < 1 or rank < shape.shape[1]:
        return []
    fitted = contrasts @ coefficients
    probability: Array | None = None
    if df >= values.shape[1]:
        inverse = np.asarray(np.linalg.inv(terms.T @ terms), dtype=np.float64)
        rng = np.random.default_rng(seed)
        drawn = _draw_deviations(residual.T @ residual, inverse, df, rng)
        drawn = fitted + np.einsum("kp,dpg->dkg", contrasts, drawn)
        probability = is_nondominated(drawn).mean(axis=0)
    on_front = is_nondominated(fitted[None])[0]
    return [
        FrontPoint(
            plw=float(plw),
            points={group: float(fitted[index, each]) for each, group in enumerate(trials.groups)},
            is_on_front=bool(on_front[index]),
            probability=None if probability is None else float(probability[index]),
        )
        for index, plw in enumerate(plws)
    ]


def is_nondominated(scores: Array) -> NDArray[np.bool_]:
    """Return (draws, K): True if no other of the K is as good in all groups and better in one.

    Args:
        scores: (draws, K, G), higher is better.
    """
    candidate, other = scores[:, :, None], scores[:, None]
    dominated = (other >= candidate).all(axis=-1) & (other > candidate).any(axis=-1)
    return np.asarray(~dominated.any(axis=-1))


def _draw_deviations(scatter: Array, inverse: Array, df: int, rng: np.random.Generator) -> Array:
    """Draw (draws, P, G) deviations of the P effects of each group, jointly over groups."""
    num_groups = len(scatter)
    # Jitter: perfectly correlated groups make the scatter matrix singular.
    jitter = 1e-12 * max(float(np.trace(scatter)), 1e-300)
    scale = scatter + jitter * np.eye(num_groups)
    sigma = stats.invwishart.rvs(df, scale, size=_DRAWS, random_state=rng)
    roots = np.linalg.cholesky(np.reshape(sigma, (_DRAWS, num_groups, num_groups)))
    around = rng.standard_normal((_DRAWS, len(inverse), num_groups))
    return np.asarray(np.linalg.cholesky(inverse) @ around @ np.swapaxes(roots, 1, 2))
