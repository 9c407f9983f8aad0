"""Compute the cost of a sweep from its records."""

from collections.abc import Sequence

from orchestrator.analysis.findings import Cost
from orchestrator.record.folder import SweepRecord, TrialRecord

_SECONDS_PER_HOUR = 3600


def compute_cost(sweep: SweepRecord, trials: Sequence[TrialRecord]) -> Cost:
    """Return the cost of the trials over all attempts, including failed ones.

    GPU-hours are known only if the spec sets the GPUs per worker or the price of a GPU. With only a
    price, each worker counts as one GPU, as in the budget.
    """
    resources = sweep.spec.get("resources") or {}
    price = resources.get("price_per_gpu_hour")
    gpus = resources.get("gpus_per_worker")
    if gpus is None and price is not None:
        gpus = 1
    held = sum(trial.busy_seconds for trial in trials) / _SECONDS_PER_HOUR
    scoring = sum(trial.scorer_seconds for trial in trials) / _SECONDS_PER_HOUR
    hours = None
    if gpus is not None:
        scorer_gpus = resources.get("gpus_per_scorer")
        if scorer_gpus is None:
            scorer_gpus = min(gpus, 1)
        hours = held * gpus * (resources.get("workers_per_trial") or 1) + scoring * scorer_gpus
    return Cost(
        held_hours=held,
        scorer_hours=scoring,
        gpu_hours=hours,
        money=None if price is None or hours is None else hours * price,
        price_per_gpu_hour=price,
    )
