"""The trials to run next where nothing can be said yet, and what they would show.

Verdicts compare weights within seeds, so what is missing of a seed comes first, and then one whole
seed more, with the next number. What that would show is simulated: studies drawn from what is known
today go through the same analysis.
"""

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

# Weights that are worth a trial beside those tried: the published grid, in round numbers.
LADDER = (0.0, 0.0005, 0.002, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
# A search's trials share few seeds; a whole seed of more weights than these is no next step.
MAX_WEIGHTS = 12
NUM_SPREAD = 5
# Of more cells, as a search over other settings makes, one is followed up.
MAX_CELLS = 4
# Above this share of weights x seeds that is there, the rest is missing and not left out.
_MOSTLY_COMPLETE = 0.5
_NUM_STUDIES = 100
# What two weights of one seed need for a paired test with two degrees of freedom.
_SEEDS_OF_TWO = 2
# More trials than these are not simulated: each study takes as long as an analysis.
_MOST_SIMULATED = 500


@dataclass(frozen=True, kw_only=True)
class NextRun:
    """A trial to run: its weight, seed and cell.

    `learning_rate`: the middle one of those tried; None where none are known.
    """

    plw: float
    seed: int
    cell: Cell
    learning_rate: float | None


@dataclass(frozen=True, kw_only=True)
class FollowUp:
    """The next trials and their prospect.

    `prospect`: of the leading verdict with these trials, if the truth is what today's trials
    suggest; None where today's trials leave no noise to simulate with, or are of several cells.
    `reason`: why these.
    """

    runs: tuple[NextRun, ...]
    reason: str
    prospect: Prospect | None


def follow_up(trials: Trials, effects: Effects | None, analysis: WeightAnalysis | None) -> FollowUp:
    """What to run next: in each cell, or of many cells in the one with most trials."""
    sizes = np.bincount(trials.cell)
    cells = list(range(len(sizes))) if len(sizes) <= MAX_CELLS else [int(sizes.argmax())]
    found: list[NextRun] = []
    for cell in cells:
        runs, reason = _of_cell(trials, cell)
        found += runs
    prospect = None
    is_single = len(trials.cells) == 1
    if analysis is not None and effects is not None and effects.noise and is_single:
        prospect = _prospect(trials, effects, analysis, [(run.plw, run.seed) for run in found])
    return FollowUp(runs=tuple(found), reason=reason, prospect=prospect)


def _of_cell(trials: Trials, cell: int) -> tuple[list[NextRun], str]:
    """The next trials of one cell, and why these."""
    own = np.flatnonzero(trials.cell == cell)
    plws = sorted({float(trials.plw[each]) for each in own})
    seeds = list(dict.fromkeys(trials.seed[each] for each in own))
    there = {(float(trials.plw[each]), trials.seed[each]) for each in own}
    runs, reason = _chosen(plws, seeds, there)
    rates = sorted(rate for each in own if (rate := trials.rates[each]) is not None)
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


def _chosen(
    plws: Sequence[float], seeds: Sequence[str], there: set[tuple[float, str]]
) -> tuple[list[tuple[float, int]], str]:
    """(PLW, seed) of the next trials, and why these."""
    numbers = [number for number in map(_seed_number, seeds) if number is not None]
    following = max(numbers, default=-1) + 1
    if len(plws) == 2 and len(seeds) == 1:
        new = range(following, following + _SEEDS_OF_TWO)
        return [(plw, seed) for seed in new for plw in plws], "more seeds of both weights"
    if len(plws) < 2:
        used = numbers or [0]
        spread = [plw for plw in _spread(plws) if plw not in plws]
        return [(plw, used[0]) for plw in spread], "more weights with a seed in use"
    whole = [(plw, seed) for seed in seeds for plw in plws]
    missing = [
        (plw, number)
        for plw, seed in whole
        if (plw, seed) not in there and (number := _seed_number(seed)) is not None
    ]
    if missing and len(missing) <= (1 - _MOSTLY_COMPLETE) * len(whole):
        return missing, "what is missing of the seeds in use"
    chosen = plws if len(plws) <= MAX_WEIGHTS else _spread(plws)
    return [(plw, following) for plw in chosen], "one seed more at every weight"


def _seed_number(seed: str) -> int | None:
    """The number of a seed, also of one written as 2.0; None where it is a name."""
    try:
        value = float(seed)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


def _spread(plws: Sequence[float]) -> list[float]:
    """Weights spread over w_p: of those tried where they are many, else of the ladder."""
    source = list(plws) if len(plws) > MAX_WEIGHTS else list(LADDER)
    at = np.array([w_p_of(plw) for plw in source])
    evenly = np.linspace(at.min(), at.max(), NUM_SPREAD)
    return [source[int(np.abs(at - place).argmin())] for place in evenly]


def _prospect(
    trials: Trials, effects: Effects, analysis: WeightAnalysis, runs: Sequence[tuple[float, int]]
) -> Prospect | None:
    """What the design with `runs` would show if the estimates are the truth."""
    estimates = analysis.estimates
    if estimates is None or effects.noise is None or effects.noise.pooled <= 0:
        return None
    if len(effects.present) > _MOST_SIMULATED:
        return None
    present = effects.present
    plw = np.concatenate([trials.plw[present], [run[0] for run in runs]])
    seed = [*(trials.seed[each] for each in present), *(str(run[1]) for run in runs)]
    at = np.array([w_p_of(each) for each in plw])
    if analysis.method == "means":
        truth = np.interp(at, analysis.w_p, estimates.values)
        ratio = estimates.f_ratio(np.eye(len(analysis.w_p)) - 1 / len(analysis.w_p))[0]
    else:
        truth = estimates.values[0] * at + estimates.values[1] * at**2
        ratio = estimates.f_ratio(np.eye(2))[0]
    # Estimates vary by noise too: what is left of their squares without it.
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
