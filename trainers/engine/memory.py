"""How much memory a fine-tune's states take, and what to change where it is not there."""

from trainers.config import TrainConfig

GIB = 2**30


def state_bytes(num_parameters: int, config: TrainConfig, world_size: int) -> float:
    """Device memory of one rank for weights, gradients, master weights and AdamW moments.

    Activations come on top. With `lora` only the frozen weights count: the rest is small.
    Source: arXiv 1910.02054 (ZeRO), section 3.1, with what each stage partitions.
    """
    deepspeed = config.deepspeed
    stage = deepspeed.zero_stage
    width = 4 if deepspeed.precision == "float32" else 2
    weights = width / (world_size if stage >= 3 else 1)
    if deepspeed.offload_parameters:
        weights = 0.0
    if config.lora is not None:
        return num_parameters * weights
    gradients = width / (world_size if stage >= 2 else 1)
    has_master_copy = stage > 0
    states = (8 + 4 * has_master_copy) / (world_size if stage >= 1 else 1)
    if deepspeed.offload_optimizer:
        gradients = states = 0.0
    return num_parameters * (weights + gradients + states)


def advice(num_parameters: int, config: TrainConfig, world_size: int) -> str:
    """What to change after a rank ran out of memory, the cheapest first, with an estimate."""
    batch, deepspeed = config.batch, config.deepspeed
    now = state_bytes(num_parameters, config, world_size) / GIB
    ways = []
    if batch.packing:
        tokens = batch.max_tokens or batch.micro_batch_size * config.data.max_length
        ways.append(f"batch.max_tokens {max(1, tokens // 2)} (now {tokens})")
    elif batch.max_tokens is not None:
        ways.append(f"batch.max_tokens {max(1, batch.max_tokens // 2)} (now {batch.max_tokens})")
    elif batch.micro_batch_size > 1:
        ways.append(f"batch.micro_batch_size {batch.micro_batch_size // 2}")
    if not deepspeed.gradient_checkpointing:
        ways.append("deepspeed.gradient_checkpointing true")
    if deepspeed.zero_stage < 3 and world_size > 1:
        partitioned = config.model_copy(
            update={"deepspeed": deepspeed.model_copy(update={"zero_stage": 3})}
        )
        least = state_bytes(num_parameters, partitioned, world_size) / GIB
        ways.append(f"deepspeed.zero_stage 3 (states {least:.1f} GiB)")
    if not deepspeed.offload_optimizer and deepspeed.zero_stage > 0:
        ways.append("deepspeed.offload_optimizer true")
    if deepspeed.precision == "float32":
        ways.append("deepspeed.precision bfloat16")
    if config.lora is None:
        ways.append("lora")
    return (
        f"weights, gradients and optimizer take about {now:.1f} GiB of it on each rank, the rest "
        f"is activations; try {', '.join(ways)}"
    )
