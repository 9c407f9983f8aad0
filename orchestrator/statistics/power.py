"""How many seeds it takes to see an effect and to name a weight, by simulating the verdict itself.

A trial's value is a quadratic in w_p plus noise, and each simulated study goes through the same
analysis as a report.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.foundation.plw_scale import w_p as w_p_of
from orchestrator.statistics.published_curve import PUBLISHED_BEST_W_P
from orchestrator.statistics.simulated_verdict import Prospect, simulate_verdicts
from trainers.foundation.errors import InputError, Problem

Array = NDArray[np.float64]

MAX_SEEDS = 100
NUM_STUDIES = 400


@dataclass(frozen=True, kw_only=True)
class Power:
    """What `seeds` of each weight would show.

    Attributes:
        effect: true points between the best and the worst tried weight.
        power: share of studies that find an effect.
        names: share of studies that name a best weight, or several tied ones.
        plw_low, plw_high: the confidence set to expect, from its lowest to its highest weight.
    """

    effect: float
    noise_sd: float
    seeds: int
    num_trials: int
    power: float
    names: float
    plw_low: float
    plw_high: float
    num_studies: int


def power_of(
    *,
    plws: Sequence[float],
    seeds: int,
    effect: float,
    trial_sd: float,
    item_sd: float = 0.0,
    best_plw: float | None = None,
    num_claims: int = 1,
    num_studies: int = NUM_STUDIES,
) -> Power:
    """The power of `seeds` trials at each of `plws`.

    Args:
        effect: points between the best and the worst tried weight.
        trial_sd: of a score over seeds at one weight, in points, without what a seed does to all
            weights alike (seeds are blocks).
        item_sd: of the same over draws of items, in points, as far as trials do not share it;
            0 where all trials are scored on the same items and `trial_sd` was measured on them.
        best_plw: the top of the curve; by default the published 0.242.
        num_claims: verdicts that share the level (groups, and overall).

    Raises:
        InputError: a number is out of its range.
    """
    check_power(plws=plws, effect=effect, trial_sd=trial_sd, item_sd=item_sd)
    if seeds < 1 or num_claims < 1:
        raise InputError(
            Problem(
                message=f"needs at least one seed and one claim, got {seeds} and {num_claims}",
                fix="count the trials of each weight as seeds",
            )
        )
    tried = sorted(set(plws))
    top = PUBLISHED_BEST_W_P if best_plw is None else w_p_of(best_plw)
    shape = -((np.array([w_p_of(plw) for plw in tried]) - top) ** 2)
    curve = effect * shape / np.ptp(shape)
    noise_sd = float(np.hypot(trial_sd, item_sd))
    prospect = _prospect(tried, seeds, curve, noise_sd, num_claims, num_studies)
    return Power(
        effect=effect,
        noise_sd=noise_sd,
        seeds=seeds,
        num_trials=seeds * len(tried),
        power=prospect.detects,
        names=prospect.names,
        plw_low=prospect.plw_low,
        plw_high=prospect.plw_high,
        num_studies=num_studies,
    )


def _prospect(
    plws: Sequence[float],
    seeds: int,
    curve: Array,
    noise_sd: float,
    num_claims: int,
    num_studies: int,
) -> Prospect:
    return simulate_verdicts(
        plw=np.tile(np.array(plws), seeds),
        seed=[str(seed) for seed in range(seeds) for _ in plws],
        truth=np.tile(curve, seeds),
        trial_sd=noise_sd,
        num_studies=num_studies,
        num_claims=num_claims,
    )


def seeds_needed(
    *,
    plws: Sequence[float],
    effect: float,
    trial_sd: float,
    item_sd: float = 0.0,
    best_plw: float | None = None,
    target: float = 0.8,
    num_claims: int = 1,
    num_studies: int = NUM_STUDIES,
) -> Power:
    """The fewest seeds of each weight, from 2, with which `target` of the studies name a weight.

    One seed is never enough: without repeated weights the curve would be assumed.

    Raises:
        InputError: a number is out of its range, or no number of seeds up to 100 is enough.
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
            num_claims=num_claims,
            num_studies=num_studies,
        )

    low, high = 1, 2
    while of(high).names < target:
        if high >= MAX_SEEDS:
            raise InputError(
                Problem(
                    message=f"{effect:g} points at a trial sd of {trial_sd:g} need over "
                    f"{MAX_SEEDS} seeds",
                    fix="look for a larger effect, or choose weights that the effect spans",
                )
            )
        low, high = high, min(2 * high, MAX_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if of(middle).names >= target else (middle, high)
    return of(high)


def check_power(*, plws: Sequence[float], effect: float, trial_sd: float, item_sd: float) -> None:
    """Refuse what no power can be computed of, with all problems at once.

    Raises:
        InputError: as described.
    """
    problems = []
    if len(set(plws)) < 2 or not all(0 <= plw <= 1 for plw in plws):
        problems.append(
            Problem(
                message=f"needs at least two weights in [0, 1], got {sorted(set(plws))}",
                fix="give the weights that a sweep would try",
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
