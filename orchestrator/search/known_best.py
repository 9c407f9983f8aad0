"""Whether a search knows the best PLW well enough to end: by the analysis that makes the report."""

import json
from collections.abc import Sequence

import numpy as np

from orchestrator.foundation.plw_scale import w_p
from orchestrator.search.points import Observation
from orchestrator.spec.setting_fields import PLW
from orchestrator.statistics.conclusions import lead_verdict
from orchestrator.statistics.study import Table
from orchestrator.statistics.table import ScoreRow
from orchestrator.statistics.verdict import Verdict

LEARNING_RATE = "optimizer.learning_rate"


def known_best(
    observations: Sequence[Observation], objective: str, *, higher_is_better: bool, within: float
) -> Verdict | None:
    """The verdict on one objective, if it names a best PLW to `within` in w_p; else None.

    `within` is half of the confidence set, from its lowest to its highest weight. Where the verdict
    compares tried weights only, the best may lie anywhere up to the tried neighbours of the set.

    Args:
        observations: points with scores, whose first value is that of `objective`.
    """
    rows = [
        row
        for number, each in enumerate(observations)
        for row in _rows(each, objective, point=str(number))
    ]
    # Without a margin: a search for the best weight does not end because weights hardly differ.
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
    """A row for each trial of a point; points that differ beside PLW do not compare."""
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
