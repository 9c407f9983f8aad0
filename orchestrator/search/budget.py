"""Check whether a sweep has reached a limit of `search.budget`."""

import time
from collections.abc import Callable

from orchestrator.record.folder import BaselineUsage, SweepFolder, TrialRecord
from orchestrator.spec.search_fields import BudgetConfig


class Budget:
    """The limits of a sweep. After a limit is reached, no trial starts; running trials finish."""

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

    def reached_limit(self, folder: SweepFolder) -> str | None:
        """Return a message that names the limit that was reached; None if none was reached.

        Trials, GPU-hours and money are counted over all runs of the sweep, including the scoring of
        untuned models. Hours are counted over this run.
        """
        config = self._config
        if config == BudgetConfig():
            return None
        records: list[TrialRecord] = []
        usages: list[TrialRecord | BaselineUsage] = []
        # A limit on hours alone does not require reading the records, of which there may be
        # thousands.
        if any(limit is not None for limit in (config.trials, config.gpu_hours, config.money)):
            records = folder.read_trials()
            bases = folder.read_sweep().bases
            usages = [*records, *(folder.read_baseline_usage(base.key) for base in bases)]
        gpu_seconds = sum(
            each.busy_seconds * self._gpus_per_trial + each.scorer_seconds * self._gpus_per_scorer
            for each in usages
        )
        gpu_hours = gpu_seconds / 3600
        used = {
            "trials": (float(sum(r.state != "pending" for r in records)), config.trials),
            "hours": ((self._now() - self._started) / 3600, config.hours),
            "gpu_hours": (gpu_hours, config.gpu_hours),
            "money": (gpu_hours * self._price, config.money),
        }
        for name, (value, limit) in used.items():
            if limit is not None and value >= limit:
                return f"search.budget.{name} is spent: {value:.4g} of {limit:g}"
        return None
