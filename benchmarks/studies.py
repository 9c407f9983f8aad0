"""Simulated studies of the prompt loss weight, of which the truth is known.

Thirteen benchmarks in three groups (5, 3, 5), each with a level of its own and 200 to 2,000 items.
A trial shares luck over all of its scores, over those of a group and with itself alone, and a
design may give each seed luck that it brings to all weights; an item is right or wrong, so noise is
binomial and scores are shares. Group g's curve on the logit scale is

    curvature_g (w_p - best_g)^2,   curvature_g < 0 or all 0

with bests spread over and beyond the range, so that some lie near its ends and some past them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from orchestrator.statistics.best_weight import quadratic_top
from orchestrator.statistics.trial_points import OVERALL
from orchestrator.statistics.table import ScoreRow
from orchestrator.transform import w_p as w_p_of

Array = NDArray[np.float64]

GROUPS = ("multiple_choice", "short_generation", "long_generation")
GROUP_OF = np.repeat([0, 1, 2], [5, 3, 5])
PAPER_PLWS = (0, 5e-4, 2.236e-3, 1e-2, 2.463e-2, 5e-2, 1e-1, 2.463e-1, 5e-1, 1)
SIX_PLWS = (0, 0.01, 0.05, 0.1, 0.25, 1)
# On the logit scale, where 0.04 is a point at a score of a half. Groups differ in their luck.
TRIAL_SD = 0.03
GROUP_TRIAL_SDS = (0.02, 0.03, 0.05)
SCORE_SD = 0.04
BEST_RANGE = (-0.1, 1.1)
BEST_SD_BETWEEN_GROUPS = 0.1
# Logarithms' range; the published fit has 4.284.
CURVATURES = (0.3, 4.3)


@dataclass(frozen=True)
class Design:
    """What a study tries: its weights, seeds of each, models, and the share of scores missing.

    `seed_sd`: of what a seed does to a group's scores at all weights, on the logit scale.
    """

    name: str
    plws: tuple[float, ...] = SIX_PLWS
    seeds: int = 3
    models: int = 1
    missing: float = 0.0
    seed_sd: float = 0.0


@dataclass(frozen=True)
class Study:
    """The rows of a study and its truth.

    `slopes`, `curvatures`: of each group and overall, in w_p on the logit scale.
    """

    rows: list[ScoreRow]
    slopes: dict[str, float]
    curvatures: dict[str, float]

    def best(self, group: str) -> float:
        """The true best w_p in [0, 1]."""
        return quadratic_top(self.slopes[group], self.curvatures[group], 0.0, 1.0)

    def vertex(self, group: str) -> float:
        """Where the curve's top is, in the range or not."""
        return -self.slopes[group] / (2 * self.curvatures[group])

    def rise(self, group: str, end: float) -> float:
        """The true curve at w_p `end` less that at 0."""
        return self.slopes[group] * end + self.curvatures[group] * end**2


def simulate(
    design: Design, seed: int, *, has_effect: bool = True, bend: float | None = None
) -> Study:
    """Study number `seed`; `bend` sets the size of every group's curvature."""
    rng = np.random.default_rng([seed, int(has_effect)])
    best = rng.uniform(*BEST_RANGE) + BEST_SD_BETWEEN_GROUPS * rng.standard_normal(len(GROUPS))
    size = np.exp(rng.uniform(*np.log(CURVATURES))) if bend is None else bend
    curvature = -size * rng.uniform(0.7, 1.3, len(GROUPS)) * has_effect
    slope = -2 * curvature * best
    level = rng.normal(0.2, 0.8, (design.models, len(GROUP_OF)))
    items = rng.integers(200, 2001, len(GROUP_OF))
    rows: list[ScoreRow] = []
    for model in range(design.models):
        of_seed = design.seed_sd * rng.standard_normal((design.seeds, len(GROUPS)))
        for plw in design.plws:
            at = w_p_of(plw)
            curve = (slope * at + curvature * at**2)[GROUP_OF] + level[model]
            for number in range(design.seeds):
                luck = _luck(rng) + of_seed[number][GROUP_OF]
                score = rng.binomial(items, special.expit(curve + luck)) / items
                kept = rng.random(len(items)) >= design.missing
                rows += _rows(f"m{model}", plw, str(number), score, items, kept)
    return Study(rows, _by_group(slope), _by_group(curvature))


def _luck(rng: np.random.Generator) -> Array:
    """What a trial's seed does to each of its benchmarks."""
    shared = TRIAL_SD * rng.standard_normal()
    groups = np.array(GROUP_TRIAL_SDS) * rng.standard_normal(len(GROUPS))
    own = SCORE_SD * rng.standard_normal(len(GROUP_OF))
    return np.asarray(shared + groups[GROUP_OF] + own)


def _rows(
    model: str,
    plw: float,
    seed: str,
    score: Array,
    items: NDArray[np.int64],
    kept: NDArray[np.bool_],
) -> list[ScoreRow]:
    clipped = np.clip(score, 0.5 / items, 1 - 0.5 / items)
    errors = np.sqrt(clipped * (1 - clipped) / items)
    return [
        ScoreRow(
            benchmark=f"b{each}",
            group=GROUPS[GROUP_OF[each]],
            plw=plw,
            seed=seed,
            model=model,
            score=float(score[each]),
            standard_error=float(errors[each]),
            num_items=int(items[each]),
        )
        for each in np.flatnonzero(kept)
    ]


def _by_group(values: Array) -> dict[str, float]:
    found = {group: float(values[index]) for index, group in enumerate(GROUPS)}
    return {**found, OVERALL: float(values.mean())}
