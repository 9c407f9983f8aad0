"""Decide whether a search may end early, with the same analysis as the report."""

import json
from collections.abc import Sequence

import numpy as np

from orchestrator.foundation.plw_scale import w_p
from orchestrator.search.points import Observation
from orchestrator.spec.setting_fields import LEARNING_RATE, PLW
from orchestrator.statistics.conclusions import lead_verdict
from orchestrator.statistics.study import Table
from orchestrator.statistics.table import ScoreRow
from orchestrator.statistics.verdict import Verdict


def convergence_verdict(
    observations: Sequence[Observation], objective: str, *, higher_is_better: bool, within: float
) -> Verdict | None:
    """Return the verdict on an objective if it locates the best w_p precisely enough, else None.

    If the verdict only compares tried weights, the best weight may be anywhere between the tried
    neighbours of the confidence set.

    Args:
        observations: points with scores; their first value is that of `objective`.
        within: maximum half width of the confidence set, in w_p.
    """
    rows = [
        row
        for number, each in enumerate(observations)
        for row in _rows(each, objective, point=str(number))
    ]
    # The margin is 0: a search must not end because all weights are about equally good.
    table = Table(rows=rows, shares=False, higher_is_better=higher_is_better, margin=0.0)
    verdict = lead_verdict(table)
    if not verdict.names_weight:
        return None
    low, high = w_p(verdict.pieces[0][0]), w_p(verdict.pieces[-1][1])
    if verdict.method == "means":
        tried = np.unique([w_p(row.plw) for row in rows])
        low = max(tried[tried < low], default=low)
        high = min(tried[tried > high], default=high)
    return verdict if (high - low) / 2 <= within else None


def _rows(observation: Observation, objective: str, point: str) -> list[ScoreRow]:
    """Return a row for each trial. Points that differ in other settings are not compared."""
    searched = observation.searched
    other = {key: value for key, value in searched.items() if key not in (PLW, LEARNING_RATE)}
    rate = searched.get(LEARNING_RATE)
    by_seed = observation.by_seed or {"0": observation.values or ()}
    return [
        ScoreRow(
            benchmark=objective,
            plw=float(searched[PLW]),
            score=values[0],
            seed=seed,
            trial=f"{point}, seed {seed}",
            condition=json.dumps(other, sort_keys=True, default=str) if other else "",
            learning_rate=None if rate is None else float(rate),
        )
        for seed, values in by_seed.items()
    ]
