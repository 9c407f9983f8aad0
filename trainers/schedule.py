"""The learning rate as a function of the step alone, so that a resumed run cannot differ."""

import math

from trainers.config import OptimizerConfig, ScheduleConfig


def learning_rate(
    step: int, total_steps: int, optimizer: OptimizerConfig, schedule: ScheduleConfig
) -> float:
    """The learning rate of optimizer step `step` (from 0).

    A linear rise over ceil(warmup_ratio * total_steps) steps to the peak, then the chosen decay
    towards 0. Source: transformers `get_cosine_schedule_with_warmup` with half a period, as
    Stanford Alpaca used; ours starts at peak/warm-up instead of 0, so that no step is wasted.
    """
    warmup_steps = math.ceil(schedule.warmup_ratio * total_steps)
    if step < warmup_steps:
        return optimizer.learning_rate * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    match schedule.kind:
        case "cosine":
            return optimizer.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return optimizer.learning_rate * (1 - progress)
        case "constant":
            return optimizer.learning_rate
