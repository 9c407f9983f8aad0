"""The learning rate schedule. It depends only on the step, so resuming cannot change it."""

import math

from trainers.config import OptimizerConfig, ScheduleConfig
from trainers.foundation.errors import InputError, Problem

_DEFAULT_DECAY_RATIO = 0.1


def learning_rate(
    step: int, total_steps: int, optimizer: OptimizerConfig, schedule: ScheduleConfig
) -> float:
    """Return the learning rate of optimizer step `step` (from 0).

    It rises linearly to the peak over the warm-up, then decays to the minimum. With kind wsd, it
    stays at the peak before it decays linearly.

    Source: transformers' `get_cosine_schedule_with_warmup` with half a period, as in Stanford
    Alpaca; arXiv 2404.06395 for wsd. Our schedule starts at peak / warm-up steps instead of 0, so
    that the first step has an effect.
    """
    peak, warmup = optimizer.learning_rate, warmup_steps(schedule, total_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    num_decay = decay_steps(schedule, total_steps)
    progress = max(0, step - (total_steps - num_decay)) / max(1, num_decay)
    minimum = peak * schedule.min_learning_rate_ratio
    match schedule.kind:
        case "cosine":
            return minimum + (peak - minimum) * 0.5 * (1 + math.cos(math.pi * progress))
        case "linear" | "wsd":
            return minimum + (peak - minimum) * (1 - progress)
        case "constant":
            return peak


def warmup_steps(schedule: ScheduleConfig, total_steps: int) -> int:
    """Return the number of warm-up steps."""
    if schedule.warmup_steps is not None:
        return schedule.warmup_steps
    return math.ceil(schedule.warmup_ratio * total_steps)


def decay_steps(schedule: ScheduleConfig, total_steps: int) -> int:
    """Return the number of steps of the decay, which are the last ones."""
    match schedule.kind:
        case "constant":
            return 0
        case "wsd":
            return math.ceil((schedule.decay_ratio or _DEFAULT_DECAY_RATIO) * total_steps)
    return total_steps - warmup_steps(schedule, total_steps)


def check_schedule(schedule: ScheduleConfig, total_steps: int) -> None:
    """Check that warm-up and decay fit into the run.

    Raises:
        InputError: they have more steps than the run.
    """
    warmup = warmup_steps(schedule, total_steps)
    decay = decay_steps(schedule, total_steps) if schedule.kind == "wsd" else 0
    if schedule.warmup_steps is not None and warmup >= total_steps:
        message = f"schedule.warmup_steps must be less than the run's {total_steps} steps, got"
        message += f" {warmup}"
    elif warmup + decay > total_steps:
        message = (
            f"the warm-up of {warmup} steps and the decay of {decay} steps do not fit into the "
            f"run's {total_steps} steps"
        )
    else:
        return
    fix = "shorten the warm-up" + (" or schedule.decay_ratio" if decay else "")
    raise InputError(Problem(message=message, where="schedule", fix=fix))


def describe_schedule(schedule: ScheduleConfig, total_steps: int) -> str:
    """Return the shape of the learning rate over the steps, as one line."""
    warmup, decay = warmup_steps(schedule, total_steps), decay_steps(schedule, total_steps)
    parts = [f"{warmup} of {total_steps} steps warm-up"]
    if schedule.kind != "cosine" and (stable := total_steps - warmup - decay):
        parts.append(f"{stable} at the peak")
    if decay:
        shape = "cosine" if schedule.kind == "cosine" else "linear"
        share = schedule.min_learning_rate_ratio
        parts.append(f"{decay} {shape} decay to {f'{share:.4g} of the peak' if share else '0'}")
    return ", ".join(parts)
