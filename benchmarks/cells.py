"""Define the cells of `benchmarks.analysis`: truth, design, and limits of the errors.

A limit is a share of studies. It is the nominal 5% plus the Monte-Carlo error of 200 studies: at
most 17 false claims, at least 183 intervals that contain the truth.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.studies import LARGE_FLAT, LOW_GROUP, PAPER_PLWS, SEVEN_GROUPS, Design, Rate
from benchmarks.truths import SHAPES

# Kinds of verdicts that claim an effect; each names a weight.
CLAIMING = ("best", "rises", "falls", "tied")

MAX_FALSE_CLAIMS = 17 / 200
MIN_COVERAGE = 183 / 200
MAX_REGRET_OVER_1 = 0.05
MAX_WRONG_NO_EFFECT = 10 / 200
MAX_GAIN_ERROR_POINTS = 0.2
MAX_GAIN_ERROR_SHARE = 0.1
PEAKS_NAMED = 170 / 200
RISES_NAMED = 160 / 200


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A truth (a name in `SHAPES`) combined with a design.

    `min_named` is the smallest allowed share of studies that name a weight. `has_limits` is False
    for a cell that is only reported.
    """

    truth: str
    design: Design
    min_named: float | None = None
    has_limits: bool = True


SIX_BY_THREE = Design(name="6 x 3")
SD_1 = Design(name="6 x 3, sd 1", noise_sd=1.0)
EIGHT_VERDICTS = Design(name="6 x 3, eight verdicts", benchmarks=SEVEN_GROUPS)
STRONG_SEEDS = Design(name="6 x 3, strong seeds", seed_sd=2.0)
HEAVY_TAILS = Design(name="6 x 3, heavy tails", has_heavy_tails=True)
MISSING = Design(name="6 x 3, 15% missing", missing=0.15)
NOISY_0 = Design(name="6 x 3, threefold noise at 0", noise_factors={0.0: 3.0})
NOISY_1 = Design(name="6 x 3, threefold noise at 1", noise_factors={1.0: 3.0})
NOISY_ENDS = Design(name="6 x 3, threefold noise at 0, 1", noise_factors={0.0: 3.0, 1.0: 3.0})
TEN_BY_ONE = Design(name="10 x 1", plws=PAPER_PLWS, num_seeds=1)
SIX_BY_TWO = Design(name="6 x 2", num_seeds=2)
TWO_BY_FIVE = Design(name="2 x 5", plws=(0.0, 0.1), num_seeds=5, span=1.5)
UNLIKE_LEVELS = Design(name="6 x 3, low group", benchmarks=LOW_GROUP)
LARGE_TASKS = Design(name="6 x 3, large flat tasks", benchmarks=LARGE_FLAT)

EQUAL_RATES = Design(
    name="6 x 3, four equal rates",
    rates=tuple(Rate(value=value, level=0.0, rise=1.0) for value in (3e-5, 1e-4, 3e-4, 1e-3)),
)
# The weight acts differently at each rate, and in the opposite direction at the last one.
UNLIKE_RATES = Design(
    name="6 x 3, four unlike rates",
    rates=(
        Rate(value=3e-5, level=-3.0, rise=0.0),
        Rate(value=1e-4, level=-1.0, rise=0.5),
        Rate(value=3e-4, level=0.0, rise=1.0),
        Rate(value=1e-3, level=-2.0, rise=-1.0),
    ),
)

OWN_RATES = Design(name="6 x 3, own rates", num_own_rates=1)
TEN_OWN_RATES = Design(name="10 x 2, own rates", plws=PAPER_PLWS, num_seeds=2, num_own_rates=1)
THREE_OWN_RATES = Design(name="6 x 3, three own rates", num_own_rates=3)

UNEVEN = (STRONG_SEEDS, HEAVY_TAILS, MISSING, NOISY_0, NOISY_1, NOISY_ENDS)
RISES = ("linear", "convex")
OTHERS = ("at-0", "at-1", "beyond-1", "step", "plateau", "saturating", "opposite-groups",
          "chance-trial", "diverged-weight")  # fmt: skip

CELLS = (
    *(Cell(truth="none", design=design)
      for design in (SIX_BY_THREE, *UNEVEN, TEN_BY_ONE, SIX_BY_TWO, TWO_BY_FIVE, EQUAL_RATES,
                     UNLIKE_RATES, OWN_RATES, TEN_OWN_RATES, THREE_OWN_RATES)),
    *(Cell(truth=truth, design=SIX_BY_THREE, min_named=PEAKS_NAMED)
      for truth in ("hill", "sharp-peak", "fast-rise")),
    Cell(truth="low-group", design=UNLIKE_LEVELS, min_named=PEAKS_NAMED),
    Cell(truth="hill", design=LARGE_TASKS, min_named=PEAKS_NAMED),
    *(Cell(truth=truth, design=SIX_BY_THREE, min_named=RISES_NAMED) for truth in RISES),
    *(Cell(truth=truth, design=SIX_BY_THREE) for truth in OTHERS),
    *(Cell(truth="hill", design=design) for design in (*UNEVEN, TEN_BY_ONE, SIX_BY_TWO)),
    *(Cell(truth=truth, design=design)
      for truth in ("hill", "linear") for design in (EQUAL_RATES, UNLIKE_RATES)),
    *(Cell(truth=truth, design=design)
      for truth in ("hill", "linear") for design in (TEN_OWN_RATES, THREE_OWN_RATES)),
    Cell(truth="linear", design=TWO_BY_FIVE),
    *(Cell(truth=truth, design=design, has_limits=False)
      for truth in ("hill", "linear") for design in (SD_1, EIGHT_VERDICTS)),
)  # fmt: skip


def broken_limits(cell: Cell, row: Mapping[str, Any]) -> list[str]:
    """Return the names of the limits that a row breaks; a value over no studies breaks none."""
    if not cell.has_limits:
        return []
    return [
        name
        for name, is_broken in {
            "coverage": _below(row["coverage"], MIN_COVERAGE),
            "regret_over_1": _above(row["regret_over_1"], MAX_REGRET_OVER_1),
            "gain_reported": _is_biased(row["gain_reported"], row["gain_true"]),
            "gain_coverage": _below(row["gain_coverage"], MIN_COVERAGE),
            "wrong_worse": _above(row["wrong_worse"], MAX_FALSE_CLAIMS),
            "wrong_no_effect": _above(row["wrong_no_effect"], MAX_WRONG_NO_EFFECT),
            "named": cell.min_named is not None and _below(row["named"], cell.min_named),
            "claims": _is_flat(cell) and _above(row["claims"], MAX_FALSE_CLAIMS),
            "any_claims": cell.truth == "none" and _above(row["any_claims"], MAX_FALSE_CLAIMS),
            "errors": row["errors"] > 0,
        }.items()
        if is_broken
    ]


def _is_flat(cell: Cell) -> bool:
    """Return whether the truth has no overall effect, so that every overall claim is false."""
    return cell.truth == "none" or abs(sum(SHAPES[cell.truth].factors)) < 1e-9


def _above(value: float | None, limit: float) -> bool:
    return value is not None and value > limit + 1e-9


def _below(value: float | None, limit: float) -> bool:
    return value is not None and value < limit - 1e-9


def _is_biased(reported: float | None, true: float | None) -> bool:
    if reported is None or true is None:
        return False
    return abs(reported - true) > max(MAX_GAIN_ERROR_POINTS, MAX_GAIN_ERROR_SHARE * abs(true))
