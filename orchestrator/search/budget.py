"""What a sweep may spend, and whether it has."""

import time
from collections.abc import Callable

from orchestrator.record.folder import BaseUsage, SweepFolder, TrialRecord
from orchestrator.spec.search_config import BudgetConfig


class Budget:
    """Once it is spent no further trial starts; those that run are finished."""

    def __init__(
        self,
        config: BudgetConfig,
        *,
        gpus_per_trial: float,
        gpus_per_scorer: float = 0.0,
        price_per_gpu_hour: float | None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._gpus_per_trial, self._gpus_per_scorer = gpus_per_trial, gpus_per_scorer
        self._price = price_per_gpu_hour or 0.0
        self._now, self._started = now, now()

    def spent(self, folder: SweepFolder) -> str | None:
        """Which limit has been reached, in words, or None.

        Trials, GPU-hours and money count over all runs of the sweep, hours over this one; what
        scoring untuned models has taken counts, too.
        """
        config = self._config
        if config == BudgetConfig():
            return None
        limits = (config.trials, config.gpu_hours, config.money)
        records: list[TrialRecord] = []
        held: list[TrialRecord | BaseUsage] = []
        # Hours need no look at the trials, of which there may be thousands.
        if any(limit is not None for limit in limits):
            records = folder.read_trials()
            usages = [folder.read_base_usage(base.key) for base in folder.read_sweep().bases]
            held = [*records, *usages]
        gpu_seconds = sum(
            each.busy_seconds * self._gpus_per_trial + each.scorer_seconds * self._gpus_per_scorer
            for each in held
        )
        gpu_hours = gpu_seconds / 3600
        money = gpu_hours * self._price
        used = {
            "trials": (float(sum(r.state != "pending" for r in records)), config.trials),
            "hours": ((self._now() - self._started) / 3600, config.hours),
            "gpu_hours": (gpu_hours, config.gpu_hours),
            "money": (money, config.money),
        }
        for name, (value, limit) in used.items():
            if limit is not None and value >= limit:
                return f"search.budget.{name} is spent: {value:.4g} of {limit:g}"
        return None
