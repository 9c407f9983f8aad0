"""Choose the next trials after an inconclusive verdict, and simulate their expected result.

Verdicts compare weights within seeds. Missing weights of existing seeds therefore come first, then
one new seed with all weights. Weights that were tried at learning rates of their own come all at
one rate, with as many new seeds as each had: only then can the two be separated. The expected
result is simulated: studies drawn from the current estimates go through the same analysis.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.foundation.plw_scale import w_p as w_p_of
from orchestrator.statistics.confidence_set import confidence_set
from orchestrator.statistics.simulated_verdict import Prospect, simulate_verdicts
from orchestrator.statistics.trial_points import Cell, Trials
from orchestrator.statistics.weight_analysis import WeightAnalysis
from orchestrator.statistics.weight_effects import Effects

Array = NDArray[np.float64]

# Candidate weights in addition to the tried ones: the published grid, rounded.
STANDARD_PLWS = (0.0, 0.0005, 0.002, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
# Maximum number of weights for a new seed. A search tries many weights with few seeds each.
MAX_WEIGHTS = 12
NUM_SPREAD = 5
# With more cells, as in a search over other settings, only the largest cell is followed up.
MAX_CELLS = 4
# If at least this share of weights x seeds exists, the other trials count as missing.
_MIN_COMPLETE_SHARE = 0.5
_NUM_STUDIES = 100
# Two weights with one seed need two more seeds for a paired test with two degrees of freedom.
_NEW_SEEDS_FOR_TWO_WEIGHTS = 2
# Designs with more trials are not simulated: each study takes as long as an analysis.
_MAX_SIMULATED_TRIALS = 500


@dataclass(frozen=True, kw_only=True)
class NextRun:
    """A trial to run: weight, seed and cell.

    `learning_rate` is the middle one of the tried learning rates; None if unknown.
    """

    plw: float
    seed: int
    cell: Cell
    learning_rate: float | None


@dataclass(frozen=True, kw_only=True)
class FollowUp:
    """The next trials and their expected result.

    `prospect` describes the leading verdict with these trials if the current estimates are true. It
    is None if there is no noise estimate, or if the trials are from several cells. `reason`
    explains the choice of trials. `learning_rate` is that of all runs if several were tried.
    """

    runs: tuple[NextRun, ...]
    reason: str
    prospect: Prospect | None
    learning_rate: float | None


def design_follow_up(
    trials: Trials, effects: Effects | None, analysis: WeightAnalysis | None
) -> FollowUp:
    """Return the next trials in each cell; if there are many cells, only in the largest one."""
    sizes = np.bincount(trials.cell)
    cells = list(range(len(sizes))) if len(sizes) <= MAX_CELLS else [int(sizes.argmax())]
    found: list[NextRun] = []
    has_own_rates = trials.is_confounded or (effects is not None and effects.has_own_rates)
    for cell in cells:
        runs, reason = _cell_runs(trials, cell, has_own_rates=has_own_rates)
        found += runs
    prospect = None
    # The simulation has no learning rates.
    is_single = len(trials.cells) == 1 and not has_own_rates
    if analysis is not None and effects is not None and effects.noise and is_single:
        prospect = _prospect(trials, effects, analysis, [(run.plw, run.seed) for run in found])
    rates = {run.learning_rate for run in found}
    return FollowUp(
        runs=tuple(found),
        reason=reason,
        prospect=prospect,
        learning_rate=rates.pop() if len(rates) == 1 < len(set(trials.rates)) else None,
    )


def _cell_runs(trials: Trials, cell: int, *, has_own_rates: bool) -> tuple[list[NextRun], str]:
    """Return the next trials of one cell, and the reason."""
    of_cell = np.flatnonzero(trials.cell == cell)
    plws = sorted({float(trials.plw[each]) for each in of_cell})
    seeds = list(dict.fromkeys(trials.seed[each] for each in of_cell))
    existing = {(float(trials.plw[each]), trials.seed[each]) for each in of_cell}
    if has_own_rates and len(plws) > 1:
        points = Counter((trials.plw[each], trials.rates[each]) for each in of_cell)
        some = "all" if len(plws) <= MAX_WEIGHTS else "some"
        runs = _all_weights(plws, seeds, max(points.values()))
        reason = f"{some} weights at one rate"
    else:
        runs, reason = _choose_runs(plws, seeds, existing)
    rates = sorted(rate for each in of_cell if (rate := trials.rates[each]) is not None)
    found = [
        NextRun(
            plw=plw,
            seed=seed,
            cell=trials.cells[cell],
            learning_rate=rates[len(rates) // 2] if rates else None,
        )
        for plw, seed in runs
    ]
    return found, reason


def _choose_runs(
    plws: Sequence[float], seeds: Sequence[str], existing: set[tuple[float, str]]
) -> tuple[list[tuple[float, int]], str]:
    """Return (PLW, seed) pairs for the next trials, and the reason."""
    if len(plws) == 2 and len(seeds) == 1:
        return _all_weights(plws, seeds, _NEW_SEEDS_FOR_TWO_WEIGHTS), "more seeds of both weights"
    if len(plws) < 2:
        used = [number for number in map(_seed_number, seeds) if number is not None] or [0]
        spread = [plw for plw in _spaced_weights(plws) if plw not in plws]
        return [(plw, used[0]) for plw in spread], "more weights, with a seed in use"
    complete = [(plw, seed) for seed in seeds for plw in plws]
    missing = [
        (plw, number)
        for plw, seed in complete
        if (plw, seed) not in existing and (number := _seed_number(seed)) is not None
    ]
    if missing and len(missing) <= (1 - _MIN_COMPLETE_SHARE) * len(complete):
        return missing, "missing weights of the seeds in use"
    return _all_weights(plws, seeds, 1), "one more seed at every weight"


def _all_weights(
    plws: Sequence[float], seeds: Sequence[str], num_seeds: int
) -> list[tuple[float, int]]:
    """Return all weights, or some of many, with `num_seeds` new seeds."""
    numbers = [number for number in map(_seed_number, seeds) if number is not None]
    following = max(numbers, default=-1) + 1
    chosen = plws if len(plws) <= MAX_WEIGHTS else _spaced_weights(plws)
    return [(plw, seed) for seed in range(following, following + num_seeds) for plw in chosen]


def _seed_number(seed: str) -> int | None:
    """Return the number of a seed, including forms such as 2.0; None if the seed is a name."""
    try:
        value = float(seed)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


def _spaced_weights(plws: Sequence[float]) -> list[float]:
    """Return weights that are evenly spaced over w_p.

    They are chosen from the tried weights if there are many, else from the standard weights.
    """
    source = list(plws) if len(plws) > MAX_WEIGHTS else list(STANDARD_PLWS)
    w_p = np.array([w_p_of(plw) for plw in source])
    evenly = np.linspace(w_p.min(), w_p.max(), NUM_SPREAD)
    return [source[int(np.abs(w_p - place).argmin())] for place in evenly]


def _prospect(
    trials: Trials, effects: Effects, analysis: WeightAnalysis, runs: Sequence[tuple[float, int]]
) -> Prospect | None:
    """Simulate the design with `runs`, with the estimates as the truth."""
    estimates = analysis.estimates
    if estimates is None or effects.noise is None or effects.noise.pooled <= 0:
        return None
    if len(effects.present) > _MAX_SIMULATED_TRIALS:
        return None
    present = effects.present
    plw = np.concatenate([trials.plw[present], [run[0] for run in runs]])
    seed = [*(trials.seed[each] for each in present), *(str(run[1]) for run in runs)]
    w_p = np.array([w_p_of(each) for each in plw])
    if analysis.method == "means":
        truth = np.interp(w_p, analysis.w_p, estimates.values)
        ratio = estimates.f_statistic(np.eye(len(analysis.w_p)) - 1 / len(analysis.w_p))[0]
    else:
        truth = estimates.values[0] * w_p + estimates.values[1] * w_p**2
        ratio = estimates.f_statistic(np.eye(2))[0]
    # Estimates contain noise, so keep only the share of their squares that is not noise.
    truth = truth * max(0.0, 1 - 1 / max(ratio, 1e-300)) ** 0.5
    width = sum(high - low for low, high in confidence_set(analysis))
    return simulate_verdicts(
        plw=plw,
        seed=seed,
        truth=np.asarray(truth),
        trial_sd=effects.noise.pooled**0.5,
        num_studies=_NUM_STUDIES,
        width_before=width,
    )
