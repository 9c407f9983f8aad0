"""Estimate the time, memory, disk space and GPU hours of trials before they run."""

import time
from collections.abc import Iterable
from functools import cache

from pydantic import ValidationError

from orchestrator.record.folder import SweepFolder
from orchestrator.spec.sweep_spec import ResourceConfig
from trainers.config import TrainConfig
from trainers.deepspeed_config import DeepSpeedConfig
from trainers.engine.memory import GIB, state_bytes
from trainers.models.loading import resolve_model_path
from trainers.models.trained_size import count_trained

# The share of the matrix-product peak that training reached on two CPU cores: SmolLM2-135M in
# float32 at about 80 tokens/s with 265 GFLOP/s.
_TYPICAL_EFFICIENCY = 0.25
ZERO_STAGES = (0, 1, 2, 3)
SECONDS_PER_HOUR = 3600


def measured_speeds(folder: SweepFolder) -> dict[str, tuple[float, str]]:
    """Return measured tokens per second and the basis of the value, by model fingerprint."""
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


def estimate_speed(num_parameters: int | None, num_workers: int) -> tuple[float | None, str]:
    """Return a trial's estimated tokens per second, and the basis of the estimate.

    The estimate uses the speed of a matrix product on this machine. Workers share the CPU cores,
    but each worker has a separate GPU.
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
    """Return one worker's GiB for weights, gradients and optimizer, without activations."""
    trained = None
    if config.lora is not None:
        trained = count_trained(resolve_model_path(config.model.path), config.lora)
    return state_bytes(num_parameters, config, num_workers, trained or 0) / GIB


def memory_by_zero_stage(
    num_parameters: int, config: TrainConfig, num_workers: int
) -> dict[int, float | None]:
    """Return `memory_gib` for each ZeRO stage; None for a stage that the config does not allow."""
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
    """Return the GiB for the exported models of all trials and what the largest keeps in training.

    Return None if a number of parameters is unknown.

    Args:
        trials: number of parameters, settings and count of each kind of trial.
    """
    models = temporary = 0
    for num_parameters, config, count in trials:
        if num_parameters is None:
            return None
        model = num_parameters * (4 if config.deepspeed.precision == "float32" else 2)
        models += count * model
        # The best model so far stays until a better one is written.
        during = model if config.export_best_every_steps is not None else 0
        if config.checkpoint.every_steps or config.checkpoint.every_minutes:
            during += 12 * (config.checkpoint.keep + 1) * num_parameters
        temporary = max(temporary, during)
    return (models + temporary) / GIB


def seconds_at_risk(settings: TrainConfig, steps: int, train_seconds: float) -> float:
    """Return the training time of a trial that the loss of a node costs at most."""
    checkpoint = settings.checkpoint
    limits = [train_seconds]
    if checkpoint.every_minutes is not None:
        limits.append(60 * checkpoint.every_minutes)
    if checkpoint.every_steps is not None:
        limits.append(train_seconds * checkpoint.every_steps / steps)
    return min(limits)


def gpu_hours(train_seconds: float, resources: ResourceConfig) -> float:
    """Return the GPU hours of `train_seconds` of trials.

    If the spec does not set the GPUs per worker, assume one GPU if the spec has a price for GPUs or
    this machine has a GPU, else none.
    """
    gpus = resources.gpus_per_worker
    if gpus is None:
        gpus = float(resources.price_per_gpu_hour is not None or _has_gpu())
    return train_seconds / SECONDS_PER_HOUR * resources.workers_per_trial * gpus


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
