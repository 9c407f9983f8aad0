"""Estimate statistical power by simulation: the seeds needed to detect an effect or name a weight.

A trial's value is a quadratic in w_p plus noise. Each simulated study goes through the same
analysis as a report.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

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
    """Expected results of `seeds` trials per weight.

    Attributes:
        effect: true difference between the best and the worst tried weight, in points.
        power: share of studies that find an effect.
        names: share of studies that name a best weight, or several tied ones.
        plw_low, plw_high: expected confidence set, from its lowest to its highest weight.
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


def simulate_power(
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
    """Return the power of `seeds` trials at each of `plws`.

    Args:
        effect: difference between the best and the worst tried weight, in points.
        trial_sd: sd of a score over seeds at one weight, in points. It excludes the effect of a
            seed that is common to all weights, because seeds are blocks.
        item_sd: sd over draws of items, in points, of the part that trials do not share. It is 0 if
            all trials are scored on the same items and `trial_sd` was measured on them.
        best_plw: optimum of the curve; default: the published 0.242.
        num_claims: number of verdicts that share the significance level (groups, and overall).

    Raises:
        InputError: a number is out of range.
    """
    check_power_inputs(plws=plws, effect=effect, trial_sd=trial_sd, item_sd=item_sd)
    if seeds < 1 or num_claims < 1:
        raise InputError(
            Problem(
                message=f"seeds and claims must be at least 1, got {seeds} and {num_claims}",
                fix="seeds is the number of trials per weight",
            )
        )
    tried = sorted(set(plws))
    best_w_p = PUBLISHED_BEST_W_P if best_plw is None else w_p_of(best_plw)
    shape = -((np.array([w_p_of(plw) for plw in tried]) - best_w_p) ** 2)
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


def required_seeds(
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
    """Return the power at the fewest seeds with which `target` of the studies name a weight.

    At least two seeds per weight are tried: without repeated weights, the analysis would assume the
    curve.

    Raises:
        InputError: a number is out of range, or 100 seeds are not enough.
    """
    if not 0 < target < 1:
        raise InputError(
            Problem(message=f"power must be in (0, 1), got {target:g}", fix="a common value is 0.8")
        )

    power_with = partial(
        simulate_power,
        plws=plws,
        effect=effect,
        trial_sd=trial_sd,
        item_sd=item_sd,
        best_plw=best_plw,
        num_claims=num_claims,
        num_studies=num_studies,
    )
    low, high = 1, 2
    while power_with(seeds=high).names < target:
        if high >= MAX_SEEDS:
            raise InputError(
                Problem(
                    message=f"an effect of {effect:g} points with trial sd {trial_sd:g} needs "
                    f"more than {MAX_SEEDS} seeds",
                    fix="choose a larger effect, or weights whose scores differ more",
                )
            )
        low, high = high, min(2 * high, MAX_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_with(seeds=middle).names >= target else (middle, high)
    return power_with(seeds=high)


def check_power_inputs(
    *, plws: Sequence[float], effect: float, trial_sd: float, item_sd: float
) -> None:
    """Check that the power is defined for these inputs.

    Raises:
        InputError: inputs are invalid; lists all of them.
    """
    problems = []
    if len(set(plws)) < 2 or not all(0 <= plw <= 1 for plw in plws):
        problems.append(
            Problem(
                message=f"at least two weights in [0, 1] are needed, got {sorted(set(plws))}",
                fix="give the weights of the planned sweep",
            )
        )
    for name, value in (("effect", effect), ("trial sd", trial_sd)):
        if not value > 0:
            problems.append(
                Problem(
                    message=f"{name} must be above 0 points, got {value:g}",
                    fix="give points on a scale of 0 to 100",
                )
            )
    if not item_sd >= 0:
        problems.append(
            Problem(
                message=f"item sd must be at least 0 points, got {item_sd:g}",
                fix="omit it if all trials are scored on the same items",
            )
        )
    if problems:
        raise InputError(problems)
