"""Which tried weights no other one beats in all groups at once, and how sure that is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from orchestrator.statistics.trial_points import OVERALL, Trials
from orchestrator.statistics.weight_analysis import Method
from orchestrator.statistics.weight_effects import fit_effects

Array = NDArray[np.float64]

_DRAWS = 2000
# Each draw compares every two weights, and no reader every two of more.
MAX_WEIGHTS = 40


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """A tried weight: its fitted points over the reference by group, and its place on the front.

    `probability`: the share of the curves that the data leave possible under which no other tried
    weight is as good in all groups and better in one; None where too few trials are left over.
    """

    plw: float
    points: dict[str, float]
    is_on_front: bool
    probability: float | None


def pareto_front(trials: Trials, method: Method, seed: int = 0) -> list[FrontPoint]:
    """Every tried weight in order; empty where too little is known of all groups.

    Of more than 40 weights it is those that are spread over w_p. The groups are drawn together,
    with the covariance that the trials' values have, from the posterior under a flat prior.
    Source: Gelman et al., Bayesian Data Analysis, 3.6 and 14.2.

    Args:
        method: what the leading verdict rests on: means, or else a curve.
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
        shape, steps = np.eye(len(at))[np.searchsorted(at, w_p)][:, 1:], np.eye(len(at))[:, 1:]
    else:
        shape = np.column_stack([w_p, w_p**2])
        steps = np.column_stack([at - at[0], at**2 - at[0] ** 2])
    effects = fit_effects(trials, OVERALL)
    if effects is None:
        return []
    terms, values = (
        effects.nuisance.out_of(each) for each in (shape, trials.values[effects.present])
    )
    coefficients, _, rank, _ = np.linalg.lstsq(terms, values, rcond=None)
    df = len(terms) - effects.nuisance.num_terms - int(rank)
    if df < 1 or rank < shape.shape[1]:
        return []
    fitted = steps @ coefficients
    probability: Array | None = None
    if df >= values.shape[1]:
        residual = values - terms @ coefficients
        inverse = np.asarray(np.linalg.inv(terms.T @ terms), dtype=np.float64)
        rng = np.random.default_rng(seed)
        drawn = _drawn_effects(residual.T @ residual, inverse, df, rng)
        drawn = fitted + np.einsum("kp,dpg->dkg", steps, drawn)
        probability = is_undominated(drawn).mean(axis=0)
    on_front = is_undominated(fitted[None])[0]
    return [
        FrontPoint(
            plw=float(plw),
            points={group: float(fitted[index, each]) for each, group in enumerate(trials.groups)},
            is_on_front=bool(on_front[index]),
            probability=None if probability is None else float(probability[index]),
        )
        for index, plw in enumerate(plws)
    ]


def is_undominated(scores: Array) -> NDArray[np.bool_]:
    """(draws, K) for scores (draws, K, G): whether no other of the K is as good in all, better in
    one."""
    mine, other = scores[:, :, None], scores[:, None]
    beaten = (other >= mine).all(axis=-1) & (other > mine).any(axis=-1)
    return np.asarray(~beaten.any(axis=-1))


def _drawn_effects(scatter: Array, inverse: Array, df: int, rng: np.random.Generator) -> Array:
    """(draws, P, G): what the P effects of each group may be off by, groups together."""
    num_groups = len(scatter)
    # Two groups that move as one make the scatter singular.
    jitter = 1e-12 * max(float(np.trace(scatter)), 1e-300)
    scale = scatter + jitter * np.eye(num_groups)
    sigma = stats.invwishart.rvs(df, scale, size=_DRAWS, random_state=rng)
    roots = np.linalg.cholesky(np.reshape(sigma, (_DRAWS, num_groups, num_groups)))
    around = rng.standard_normal((_DRAWS, len(inverse), num_groups))
    return np.asarray(np.linalg.cholesky(inverse) @ around @ np.swapaxes(roots, 1, 2))
