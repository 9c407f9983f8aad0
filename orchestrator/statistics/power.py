"""How many seeds and trials it takes to see an effect: closed forms of the test that is used.

The curve is a quadratic in w_p, and a trial's value has the luck of its seed and what of the
items' noise is not the same in all trials. The test of a flat curve is then an F test whose power
is known exactly.
Source: Cohen 1988, chapter 9 (noncentral F). Checked by simulation in the tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from orchestrator.statistics.best_weight import PUBLISHED_BEST_W_P
from orchestrator.statistics.seed_blocks import MIN_FREEDOM
from orchestrator.statistics.table import plw_of
from orchestrator.transform import w_p as w_p_of
from trainers.errors import InputError, Problem

Array = NDArray[np.float64]

_NUM_TERMS = 3
_MOST_SEEDS = 10_000


@dataclass(frozen=True, kw_only=True)
class Power:
    """What `seeds` of each weight would show.

    `power`: the chance to find an effect where there is one of `effect` points. `plw_low`,
    `plw_high`: the interval of the best PLW to expect, clipped to the range tried.
    """

    effect: float
    noise_sd: float
    seeds: int
    num_trials: int
    power: float
    plw_low: float
    plw_high: float


def power_of(
    *,
    plws: Sequence[float],
    seeds: int,
    effect: float,
    trial_sd: float,
    item_sd: float = 0.0,
    best_plw: float | None = None,
    level: float = 0.05,
    num_claims: int = 1,
) -> Power:
    """The power of `seeds` trials at each of `plws`.

    Args:
        effect: points between the highest and the lowest tried place of the curve.
        trial_sd: of a group's score over seeds at one weight, in points, without what a seed does
            to all weights alike (seeds are blocks).
        item_sd: of the same over draws of items, in points, as far as trials do not share it;
            0 where all trials are scored on the same items and `trial_sd` was measured on them.
        best_plw: the top of the curve; by default the published 0.242.
        num_claims: tests that share the level (groups, and overall); Bonferroni, which is what
            Holm's rule gives the first of them.

    Raises:
        InputError: a number is out of its range.
    """
    check_power(plws=plws, effect=effect, trial_sd=trial_sd, item_sd=item_sd)
    if seeds < 1 or num_claims < 1 or not 0 < level < 1:
        raise InputError(
            Problem(
                message=f"needs at least one seed and claim and a level in (0, 1),"
                f" got {seeds}, {num_claims} and {level:g}",
                fix="count trials per weight as seeds",
            )
        )
    at = np.array([w_p_of(plw) for plw in plws])
    top = PUBLISHED_BEST_W_P if best_plw is None else w_p_of(best_plw)
    curve, curvature = _curve(at, top, effect)
    noise_sd = float(np.hypot(trial_sd, item_sd))
    freedom = _freedom(seeds, len(at))
    if freedom < 1:
        low, high, power = float(at.min()), float(at.max()), 0.0
    else:
        shift = seeds * float(np.sum((curve - curve.mean()) ** 2)) / noise_sd**2
        limit = stats.f.isf(level / num_claims, 2, freedom)
        power = float(stats.ncf.sf(limit, 2, freedom, shift))
        half = _half_width(at, top, seeds, noise_sd, curvature, freedom)
        low, high = max(top - half, float(at.min())), min(top + half, float(at.max()))
    return Power(
        effect=effect,
        noise_sd=noise_sd,
        seeds=seeds,
        num_trials=seeds * len(at),
        power=power,
        plw_low=plw_of(low),
        plw_high=plw_of(max(high, low)),
    )


def seeds_needed(
    *,
    plws: Sequence[float],
    effect: float,
    trial_sd: float,
    item_sd: float = 0.0,
    best_plw: float | None = None,
    target: float = 0.8,
    level: float = 0.05,
    num_claims: int = 1,
) -> Power:
    """The fewest seeds of each weight with at least `target` power.

    Raises:
        InputError: a number is out of its range, or no number of seeds up to 10,000 is enough.
    """
    if not 0 < target < 1:
        raise InputError(
            Problem(message=f"power must be in (0, 1), got {target:g}", fix="0.8 is usual")
        )

    def of(seeds: int) -> Power:
        return power_of(
            plws=plws,
            seeds=seeds,
            effect=effect,
            trial_sd=trial_sd,
            item_sd=item_sd,
            best_plw=best_plw,
            level=level,
            num_claims=num_claims,
        )

    if of(_MOST_SEEDS).power < target:
        raise InputError(
            Problem(
                message=f"{effect:g} points at a trial sd of {trial_sd:g} need over "
                f"{_MOST_SEEDS} seeds",
                fix="look for a larger effect, or choose weights that the effect spans",
            )
        )
    low, high = 0, _MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if of(middle).power >= target else (middle, high)
    return of(high)


def check_power(*, plws: Sequence[float], effect: float, trial_sd: float, item_sd: float) -> None:
    """Refuse what no power can be computed of, with all problems at once.

    Raises:
        InputError: as said.
    """
    problems = []
    if len(set(plws)) < _NUM_TERMS or not all(0 <= plw <= 1 for plw in plws):
        problems.append(
            Problem(
                message=f"needs at least three weights in [0, 1], got {sorted(set(plws))}",
                fix="a curve of three weights or more has a top",
            )
        )
    for name, value in (("effect", effect), ("trial sd", trial_sd)):
        if not value > 0:
            problems.append(
                Problem(
                    message=f"{name} must be over 0 points, got {value:g}",
                    fix="give points on the scale of 0 to 100",
                )
            )
    if not item_sd >= 0:
        problems.append(
            Problem(
                message=f"item sd must be at least 0 points, got {item_sd:g}",
                fix="leave it out where trials share their items",
            )
        )
    if problems:
        raise InputError(problems)


def _freedom(seeds: int, num_weights: int) -> int:
    """What is left beside the curve and, where enough is, the seeds' own levels."""
    plain = seeds * num_weights - _NUM_TERMS
    return plain - (seeds - 1) if plain - (seeds - 1) >= MIN_FREEDOM else plain


def _curve(at: Array, top: float, effect: float) -> tuple[Array, float]:
    """The curve at the tried places, highest less lowest being `effect`, and its curvature."""
    shape = -((at - top) ** 2)
    scale = effect / float(np.ptp(shape))
    return scale * shape, -scale


def _half_width(
    at: Array, top: float, seeds: int, noise_sd: float, curvature: float, freedom: int
) -> float:
    """Of the interval of the top, by the delta method: the slope's error over twice the bend."""
    terms = np.vander(at, _NUM_TERMS, increasing=True)
    slope = np.array([0.0, 1.0, 2 * top])
    variance = noise_sd**2 / seeds * float(slope @ np.linalg.inv(terms.T @ terms) @ slope)
    return float(stats.t.ppf(0.975, freedom) * variance**0.5 / abs(2 * curvature))
