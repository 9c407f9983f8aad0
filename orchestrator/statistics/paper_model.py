"""The paper's model of a table of scores, for comparison: it counts every score as a trial.

    logit E[score] = b0 + b1 w_p + b2 w_p^2 + benchmark,   score ~ beta

Source: arXiv 2401.13586. Scores of one checkpoint share its seed's luck, which this model does not
know of, so that it claims an effect far too often; docs/analysis.md has the numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from orchestrator.statistics.best_weight import quadratic_top
from orchestrator.statistics.beta_glmm import BetaFit, fit_beta_glmm
from orchestrator.statistics.curves import inside_unit
from orchestrator.statistics.table import ScoreRow, plw_of

_NUM_TERMS = 3


@dataclass(frozen=True, kw_only=True)
class PaperModel:
    """The fit of the three terms 1, w_p and w_p^2.

    `critical_plw`: where the curve is highest in the tried range. `p_value`: of a flat curve, by
    Wald's test with every score a trial.
    """

    fit: BetaFit
    critical_plw: float
    p_value: float


def fit_paper_model(rows: Sequence[ScoreRow], *, by_trial: bool = False) -> PaperModel:
    """The beta regression with a random intercept for each benchmark, and each trial if `by_trial`.

    Raises:
        InputError: under three weights were tried.
    """
    at = np.array([row.w_p for row in rows])
    levels = [_numbers([row.benchmark for row in rows])]
    if by_trial:
        levels.append(_numbers([repr(row.trial_key) for row in rows]))
    fit = fit_beta_glmm(inside_unit(rows), np.vander(at, _NUM_TERMS, increasing=True), levels)
    curve = fit.coefficients[1:]
    distance = float(curve @ np.linalg.solve(fit.covariance[1:, 1:], curve))
    top = quadratic_top(float(curve[0]), float(curve[1]), float(at.min()), float(at.max()))
    return PaperModel(fit=fit, critical_plw=plw_of(top), p_value=float(special.chdtrc(2, distance)))


def _numbers(names: Sequence[str]) -> list[int]:
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return [number[name] for name in names]
