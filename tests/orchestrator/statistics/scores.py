"""Small tables of scores, of which the truth is plain."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from orchestrator.foundation.plw_scale import w_p
from orchestrator.statistics.table import ScoreRow

PLWS = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)


def rows_of(
    curve: Callable[[float], float],
    *,
    plws: Sequence[float] = PLWS,
    seeds: int = 3,
    trial_sd: float = 0.02,
    seed: int = 0,
    groups: dict[str, int] | None = None,
    **same: Any,
) -> list[ScoreRow]:
    """Scores expit(curve(w_p) + luck of the trial), for so many benchmarks in each group."""
    rng = np.random.default_rng(seed)
    rows = []
    for plw in plws:
        for number in range(seeds):
            luck = trial_sd * rng.standard_normal()
            for group, count in (groups or {"multiple_choice": 3}).items():
                for each in range(count):
                    logit = curve(w_p(plw)) + luck + 0.2 * each + 0.01 * rng.standard_normal()
                    rows.append(ScoreRow(benchmark=f"{group}{each}", group=group, plw=plw,
                                         seed=str(number), score=float(1 / (1 + np.exp(-logit))),
                                         **same))  # fmt: skip
    return rows
