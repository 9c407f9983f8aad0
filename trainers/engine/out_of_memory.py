"""Explain out-of-memory errors: what takes the memory, and which settings reduce it."""

from collections.abc import Iterator
from contextlib import contextmanager

from trainers.config import TrainConfig
from trainers.engine.memory import GIB, state_bytes
from trainers.engine.ranks import Ranks
from trainers.foundation.errors import InputError, TrainingError, is_out_of_memory
from trainers.models.loading import count_parameters, resolve_model_path
from trainers.models.trained_size import count_trained


@contextmanager
def explain_out_of_memory(config: TrainConfig, ranks: Ranks) -> Iterator[None]:
    """Convert an out-of-memory error in this context to advice on what to change.

    Raises:
        TrainingError: memory ran out.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, TrainingError) or not is_out_of_memory(error):
            raise
        num_trained = None
        try:
            path = resolve_model_path(config.model.path)
            num_parameters = count_parameters(path)
            if config.lora is not None:
                num_trained = count_trained(path, config.lora)
        except InputError:
            num_parameters = None
        advice = out_of_memory_advice(num_parameters, config, ranks.world_size, num_trained or 0)
        raise TrainingError(
            f"a rank ran out of memory on {ranks.device}: {advice}", kind="out_of_memory"
        ) from error


def out_of_memory_advice(
    num_parameters: int | None, config: TrainConfig, world_size: int, num_trained: int = 0
) -> str:
    """Return what to change after a rank ran out of memory, the cheapest change first.

    Args:
        num_parameters: None if unknown, for example for a model on the hub.
        num_trained: as for `state_bytes`.
    """

    def states(config: TrainConfig) -> str:
        assert num_parameters is not None
        return f"{state_bytes(num_parameters, config, world_size, num_trained) / GIB:.1f} GiB"

    batch, deepspeed = config.batch, config.deepspeed
    changes = []
    if batch.packing:
        tokens = batch.max_tokens or batch.micro_batch_size * config.data.max_length
        changes.append(f"batch.max_tokens {max(1, tokens // 2)} (now {tokens})")
    elif batch.max_tokens is not None:
        changes.append(f"batch.max_tokens {max(1, batch.max_tokens // 2)} (now {batch.max_tokens})")
    elif batch.micro_batch_size > 1:
        changes.append(f"batch.micro_batch_size {batch.micro_batch_size // 2}")
    if not deepspeed.gradient_checkpointing:
        changes.append("deepspeed.gradient_checkpointing true")
    is_quantized = config.lora is not None and config.lora.quantization is not None
    if deepspeed.zero_stage < 3 and world_size > 1 and not is_quantized:
        partitioned = config.model_copy(
            update={"deepspeed": deepspeed.model_copy(update={"zero_stage": 3})}
        )
        size = "" if num_parameters is None else f" (states {states(partitioned)})"
        changes.append(f"deepspeed.zero_stage 3{size}")
    can_offload = deepspeed.zero_stage > 0 and config.optimizer.state_bits == 32
    if can_offload and not deepspeed.offload_optimizer:
        changes.append("deepspeed.offload_optimizer true")
    if deepspeed.precision == "float32":
        changes.append("deepspeed.precision bfloat16")
    if config.lora is None:
        changes.append("lora")
    advice = f"try {', '.join(changes)}"
    if num_parameters is None:
        return advice
    return (
        f"weights, gradients and optimizer take about {states(config)} on each rank, the rest "
        f"is activations; {advice}"
    )
