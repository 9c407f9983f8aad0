"""What a trial will take: time, memory, disk and money, as far as that is known beforehand."""

import time
from collections.abc import Iterable
from functools import cache

from pydantic import ValidationError

from orchestrator.record.folder import SweepFolder
from orchestrator.spec.sweep_spec import ResourceConfig
from trainers.config import DeepSpeedConfig, TrainConfig
from trainers.engine.memory import GIB, state_bytes

# The share of the matrix-product peak that training reached on two CPU cores: SmolLM2-135M in
# float32 at about 80 tokens/s with 265 GFLOP/s.
_TYPICAL_EFFICIENCY = 0.25
ZERO_STAGES = (0, 1, 2, 3)
SECONDS_PER_HOUR = 3600


def measured_speeds(folder: SweepFolder) -> dict[str, tuple[float, str]]:
    """Tokens a second, and how they were found, by the fingerprint of each model trained so far."""
    if not folder.sweep_json.exists():
        return {}
    fingerprints = {base.key: base.model["fingerprint"] for base in folder.read_sweep().bases}
    speeds: dict[str, list[float]] = {}
    for trial in folder.read_trials():
        if trial.tokens_per_second and trial.base in fingerprints:
            speeds.setdefault(fingerprints[trial.base], []).append(trial.tokens_per_second)
    return {
        fingerprint: (
            sum(found) / len(found),
            f"measured on {len(found)} finished trials of this sweep",
        )
        for fingerprint, found in speeds.items()
    }


def guessed_speed(num_parameters: int | None, num_workers: int) -> tuple[float | None, str]:
    """Tokens a second of a trial, from a matrix product on this machine, and how it was found.

    Workers share this machine's cores, but each has a GPU of its own.
    """
    if num_parameters is None:
        return None, "the model is not on this machine yet"
    peak = _matmul_flops_per_second() * (num_workers if _has_gpu() else 1)
    whose = f"{num_workers} such GPUs'" if _has_gpu() and num_workers > 1 else "this machine's"
    basis = (
        f"6 FLOP per parameter and token at {_TYPICAL_EFFICIENCY:.0%} of {whose} "
        f"{peak / 1e9:.0f} GFLOP/s"
    )
    return _TYPICAL_EFFICIENCY * peak / (6 * num_parameters), basis


@cache
def _matmul_flops_per_second(size: int = 1024, seconds: float = 0.2) -> float:
    import torch

    device = "cuda" if _has_gpu() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    float((matrix @ matrix).sum())
    count, started = 0, time.monotonic()
    while time.monotonic() - started < seconds:
        float((matrix @ matrix)[0, 0])
        count += 1
    return 2 * size**3 * count / (time.monotonic() - started)


def memory_gib(num_parameters: int, config: TrainConfig, num_workers: int) -> float:
    """GiB of one worker for weights, gradients and optimizer; activations come on top."""
    return state_bytes(num_parameters, config, num_workers) / GIB


def memory_by_zero_stage(
    num_parameters: int, config: TrainConfig, num_workers: int
) -> dict[int, float | None]:
    """`memory_gib` under each ZeRO stage; None for one that the other settings rule out."""
    found: dict[int, float | None] = {}
    for stage in ZERO_STAGES:
        settings = config.deepspeed.model_dump() | {"zero_stage": stage}
        try:
            deepspeed = DeepSpeedConfig.model_validate(settings)
        except ValidationError:
            found[stage] = None
            continue
        other = config.model_copy(update={"deepspeed": deepspeed})
        found[stage] = memory_gib(num_parameters, other, num_workers)
    return found


def disk_gib(trials: Iterable[tuple[int | None, TrainConfig, int]]) -> float | None:
    """GiB for the exported models of trials and for the checkpoints of the largest.

    Args:
        trials: number of parameters and settings of each, None where the number is unknown, and
            how many there are of its kind.
    """
    models = checkpoints = 0
    for num_parameters, config, count in trials:
        if num_parameters is None:
            return None
        models += count * num_parameters * (4 if config.deepspeed.precision == "float32" else 2)
        if config.checkpoint.every_steps is not None:
            checkpoints = max(checkpoints, 12 * (config.checkpoint.keep + 1) * num_parameters)
    return (models + checkpoints) / GIB


def gpu_hours(train_seconds: float, resources: ResourceConfig) -> float:
    """Hours of a GPU that `train_seconds` of trials hold.

    Where the spec leaves the GPUs of a worker open, they are one each if a GPU has a price or
    this machine has one, and else none.
    """
    gpus = resources.gpus_per_worker
    if gpus is None:
        gpus = float(resources.price_per_gpu_hour is not None or _has_gpu())
    return train_seconds / SECONDS_PER_HOUR * resources.workers_per_trial * gpus


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
