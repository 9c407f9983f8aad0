"""Values of trials as points over PLW: the mean of the seeds of each setting, with an interval."""

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
# Spreads under this are rounding: seeds that agree to the last digit.
_SAME = 1e-12


@dataclass(frozen=True, kw_only=True)
class TrialValue:
    """One value of one trial.

    Attributes:
        error: standard error over items, where that is known.
        level: what its seed does to all weights alike, which `value` is without; 0 where the value
            is as scored.
        noise_share: share of the trial's variance that `value` still has without the level.
    """

    trial: TrialRecord
    value: float
    error: float | None = None
    num_items: int = 0
    level: float = 0.0
    noise_share: float = 1.0


def points_of(
    values: Sequence[TrialValue],
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    told: Collection[str] = (),
) -> list[Point]:
    """A point for each setting, by PLW; intervals end at `bounds`.

    Args:
        told: searched settings that go without saying.
    """
    pools: dict[str, list[TrialValue]] = {}
    for value in values:
        pools.setdefault(_identity(value.trial), []).append(value)
    points = [_point(pool, bounds, told) for pool in pools.values()]
    return sorted(points, key=lambda point: point.prompt_loss_weight)


def _identity(trial: TrialRecord) -> str:
    """What trials must share to count as seeds of one setting: everything but `seed`."""
    shared = {key: value for key, value in trial.settings.items() if key != "seed"}
    return json.dumps(shared, sort_keys=True, default=str)


def _point(pool: Sequence[TrialValue], bounds: tuple[float, float], told: Collection[str]) -> Point:
    trial = pool[0].trial
    return Point(
        **over_seeds(pool, bounds).model_dump(),
        prompt_loss_weight=trial.prompt_loss_weight,
        w_p=w_p(trial.prompt_loss_weight),
        other_settings=other_settings(trial, told),
        values=[value.value + value.level for value in pool],
        seeds=[int(value.trial.settings["seed"]) for value in pool],
        trial_ids=[value.trial.id for value in pool],
    )


def other_settings(trial: TrialRecord, told: Collection[str] = ()) -> dict[str, Any]:
    """What was searched beside PLW and seed, without what is in `told`."""
    return {
        key: value
        for key, value in trial.searched.items()
        if key.rpartition(".")[2] not in ("prompt_loss_weight", "seed") and key not in told
    }


def over_seeds(
    pool: Sequence[TrialValue], bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Estimate:
    """The mean over seeds with a Student t 95% interval; one seed has that of its items.

    Seeds that agree to the last digit, as counts of few items often do, have no spread to
    estimate from: their interval is the items' one too (the widest), never one of width 0.
    """
    values = [value.value for value in pool]
    mean = math.fsum(values) / len(values)
    num_items = min(value.num_items for value in pool)
    half, interval = _half_width(pool, values, mean)
    if half is None:
        return Estimate(value=mean, ci_low=None, ci_high=None, interval=None, num_items=num_items)
    # Student's t knows no bounds, and with two seeds goes far beyond them.
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
            # scipy takes a second to import; a sweep of single seeds never needs it.
            from scipy.special import stdtrit

            quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
            return quantile * spread / math.sqrt(len(values)), "seeds"
    errors = [value.error for value in pool]
    if any(error is None for error in errors):
        return None, None
    return _Z_95 * max(error for error in errors if error is not None), "items"
