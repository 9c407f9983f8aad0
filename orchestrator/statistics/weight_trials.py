"""Validate trials of pairs of weights, and report limits of the data."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.statistics.weight_models import Fit
from trainers.foundation.errors import InputError, Problem

Array = NDArray[np.float64]
Pair = tuple[float, float]

# With fewer degrees of freedom, t and F quantiles are too large for a useful test, and scores in
# steps of one item may be equal by chance.
MIN_DF = 3
# Residuals below this share of the scores' size are rounding errors: seeds have identical scores.
_ROUNDING = 1e-9
_OUTLIER_LEVEL = 0.01
_UNEQUAL_LEVEL = 0.01
_MAX_PROBLEMS = 10


@dataclass(frozen=True, kw_only=True)
class WeightTrial:
    """One trial: its two weights in [0, 1], its seed, and its score in the unit of the grid."""

    prompt_weight: float
    completion_weight: float
    seed: str
    score: float


def check_trials(trials: Sequence[WeightTrial]) -> None:
    """Check that a model can be fitted to the trials.

    Raises:
        InputError: trials cannot be used; lists at most ten problems.
    """
    problems = list(_problems(trials))
    if problems:
        raise InputError(problems[:_MAX_PROBLEMS])


def _problems(trials: Sequence[WeightTrial]) -> Iterator[Problem]:
    seen: set[tuple[float, float, str]] = set()
    for number, trial in enumerate(trials, start=1):
        where = f"trial {number}"
        weights = (trial.prompt_weight, trial.completion_weight)
        key = (*weights, trial.seed)
        pair = f"prompt weight {weights[0]:g} and completion weight {weights[1]:g}"
        if not all(0 <= weight <= 1 for weight in weights) or not any(weights):
            message = f"weights must be in [0, 1] and not both 0, got {pair}"
            yield Problem(message=message, where=where, fix="correct the weights")
        if not math.isfinite(trial.score):
            message = f"score must be finite, got {trial.score}"
            yield Problem(message=message, where=where, fix="remove the trial")
        if key in seen:
            message = f"second trial of {pair} with seed {trial.seed}"
            yield Problem(message=message, where=where, fix="keep one of the two")
        seen.add(key)
    if len({key[:2] for key in seen}) < 2:
        message = "at least two pairs of weights are needed for a comparison"
        yield Problem(message=message, fix="add trials of another pair")


def unmeasured_noise_reason(scores: Array, fit: Fit) -> str:
    """Return the reason why noise cannot be estimated; empty if it can."""
    if fit.df == 0:
        return "no pair has a second seed, so noise cannot be estimated and nothing is tested"
    if fit.df < MIN_DF:
        left = f"{fit.df} residual degree{'' if fit.df == 1 else 's'} of freedom"
        return f"{left}, but tests need {MIN_DF}"
    if math.sqrt(fit.ssr / fit.df) <= _ROUNDING * max(1.0, float(np.abs(scores).max())):
        return "seeds have identical scores, so noise cannot be estimated and nothing is tested"
    return ""


def grid_notes(trials: Sequence[WeightTrial], fit: Fit, *, is_blocked: bool) -> tuple[str, ...]:
    """Return notes that limit conclusions from a fit whose noise is measured."""
    notes = []
    if not is_blocked and len({trial.seed for trial in trials}) > 1:
        notes.append(
            "seeds are not used as blocks because pairs share too few of them: run every pair "
            "with the same seeds"
        )
    notes += _unequal_noise(trials, fit)
    for index in fit.outliers(_OUTLIER_LEVEL):
        trial = trials[index]
        notes.append(
            f"outlier: the trial at prompt weight {trial.prompt_weight:g}, completion weight "
            f"{trial.completion_weight:g}, seed {trial.seed} is {fit.residuals[index]:+.3g} from "
            "the prediction for its pair and seed (externally studentised residual, Bonferroni, 1%)"
        )
    return tuple(notes)


def _unequal_noise(trials: Sequence[WeightTrial], fit: Fit) -> Iterator[str]:
    """Yield a note if trials of one prompt or completion weight are noisier than the others.

    Source: Brown and Forsythe 1974, Robust tests for the equality of variances (medians).
    """
    from scipy.stats import levene

    scaled = fit.scaled_residuals()
    axes = {
        "prompt weight": [trial.prompt_weight for trial in trials],
        "completion weight": [trial.completion_weight for trial in trials],
    }
    for name, weights in axes.items():
        groups = {
            weight: scaled[np.array([own == weight for own in weights])] for weight in set(weights)
        }
        groups = {weight: own for weight, own in groups.items() if len(own) > 1}
        if len(groups) < 2:
            continue
        p_value = float(levene(*groups.values(), center="median").pvalue)
        if not p_value < _UNEQUAL_LEVEL:
            continue
        noise = {weight: float(np.sqrt((own**2).mean())) for weight, own in groups.items()}
        most, least = max(noise, key=noise.__getitem__), min(noise, key=noise.__getitem__)
        yield (
            f"noise is unequal: sd {noise[most]:.2g} at {name} {most:g} and {noise[least]:.2g} at "
            f"{least:g} (Brown-Forsythe test, p = {p_value:.1g}). Tests and intervals assume equal "
            f"noise; remove {name} {most:g} to check the results without it"
        )
