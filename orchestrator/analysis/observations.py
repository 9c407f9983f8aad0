"""Compute points over PLW: the mean over seeds of each setting, with an interval."""

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from orchestrator.analysis.findings import Estimate, Point
from orchestrator.foundation.plw_scale import w_p
from orchestrator.record.folder import TrialRecord

CONFIDENCE = 0.95
_Z_95 = NormalDist().inv_cdf(0.975)
# Smaller relative spreads are rounding errors: the seeds have identical values.
_SAME = 1e-12


@dataclass(frozen=True, kw_only=True)
class TrialValue:
    """One value of one trial.

    Attributes:
        error: standard error over items, if known.
        interval: 95% interval over items of `value`, if known; None if a level was subtracted.
        level: effect of the seed that all weights share, already subtracted from `value`; 0 if
            nothing was subtracted.
        noise_share: share of the trial's variance that remains in `value` after the subtraction.
    """

    trial: TrialRecord
    value: float
    error: float | None = None
    interval: tuple[float, float] | None = None
    num_items: int = 0
    level: float = 0.0
    noise_share: float = 1.0


def make_points(
    values: Sequence[TrialValue],
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    implied: Collection[str] = (),
) -> list[Point]:
    """Return one point per setting, sorted by PLW; intervals are clipped to `bounds`.

    Args:
        implied: searched settings to omit from `other_settings`.
    """
    pools: dict[str, list[TrialValue]] = {}
    for value in values:
        pools.setdefault(_identity(value.trial), []).append(value)
    points = [_point(pool, bounds, implied) for pool in pools.values()]
    return sorted(points, key=lambda point: point.prompt_loss_weight)


def _identity(trial: TrialRecord) -> str:
    """Return all settings except `seed` as a key, equal for all seeds of a setting."""
    shared = {key: value for key, value in trial.settings.items() if key != "seed"}
    return json.dumps(shared, sort_keys=True, default=str)


def _point(
    pool: Sequence[TrialValue], bounds: tuple[float, float], implied: Collection[str]
) -> Point:
    trial = pool[0].trial
    return Point(
        **mean_over_seeds(pool, bounds).model_dump(),
        prompt_loss_weight=trial.prompt_loss_weight,
        w_p=w_p(trial.prompt_loss_weight),
        other_settings=other_settings(trial, implied),
        values=[value.value + value.level for value in pool],
        seeds=[int(value.trial.settings["seed"]) for value in pool],
        trial_ids=[value.trial.id for value in pool],
    )


def other_settings(trial: TrialRecord, implied: Collection[str] = ()) -> dict[str, Any]:
    """Return the searched settings other than PLW and seed, without those in `implied`."""
    return {
        key: value
        for key, value in trial.searched.items()
        if key.rpartition(".")[2] not in ("prompt_loss_weight", "seed") and key not in implied
    }


def mean_over_seeds(
    pool: Sequence[TrialValue], bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Estimate:
    """Return the mean over seeds with Student's t 95% interval.

    A single seed has the interval over its items: that of its score, if known. Seeds with identical
    values, which are common with few items, do not allow an estimate of the spread: they have the
    widest of their intervals over items, never one of width 0.
    """
    values = [value.value for value in pool]
    mean = math.fsum(values) / len(values)
    num_items = min(value.num_items for value in pool)
    if len(pool) == 1 and pool[0].interval is not None:
        low, high = pool[0].interval
        return Estimate(value=mean, ci_low=low, ci_high=high, interval="items", num_items=num_items)
    half, interval = _half_width(pool, values, mean)
    if half is None:
        return Estimate(value=mean, ci_low=None, ci_high=None, interval=None, num_items=num_items)
    # Student's t interval is unbounded and, with two seeds, can be much wider than the scale.
    low, high = max(mean - half, bounds[0]), min(mean + half, bounds[1])
    return Estimate(value=mean, ci_low=low, ci_high=high, interval=interval, num_items=num_items)


def _half_width(
    pool: Sequence[TrialValue], values: Sequence[float], mean: float
) -> tuple[float | None, Any]:
    if len(values) > 1:
        left = math.fsum(value.noise_share for value in pool) / len(pool)
        squares = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
        spread = math.sqrt(squares / left) if left > 0 else 0.0
        if spread > _SAME * max(1.0, abs(mean)):
            # scipy takes a second to import; sweeps with one seed do not need it.
            from scipy.special import stdtrit

            quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
            return quantile * spread / math.sqrt(len(values)), "seeds"
    errors = [value.error for value in pool]
    if any(error is None for error in errors):
        return None, None
    return _Z_95 * max(error for error in errors if error is not None), "items"
