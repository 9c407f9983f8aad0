"""Estimate the memory for the states of a fine-tune."""

from trainers.config import TrainConfig

GIB = 2**30

# DeepSpeed's default bucket of gradients that are reduced together, in elements.
BUCKET_ELEMENTS = 5e8
# Source: arXiv 2305.14314, section 3: 4 bits, and 0.127 bits for the scales. Embeddings and the
# head, which are not quantized, are counted as if they were.
_NF4_BYTES = 4.127 / 8


def state_bytes(
    num_parameters: int, config: TrainConfig, world_size: int, num_trained: int = 0
) -> float:
    """Return the largest bytes of weights, gradients and AdamW states on one rank during a step.

    The estimate is for device memory, without activations. It includes copies of gradients that
    DeepSpeed makes in the backward pass and in the step.

    Args:
        num_trained: with `lora`, the elements of factors and of modules that are trained themselves
            (`trainers.models.trained_size`).

    Source: arXiv 1910.02054 (ZeRO), section 3.1, for the states that each stage partitions. The
    copies were measured with DeepSpeed 0.19 (docs/design-log.md).
    """
    deepspeed = config.deepspeed
    stage = deepspeed.zero_stage
    is_float32 = deepspeed.precision == "float32"
    weights = (4 if is_float32 else 2) / (world_size if stage >= 3 else 1)
    if deepspeed.offload_parameters:
        weights = 0.0
    num_frozen = 0
    if config.lora is not None:
        # The weights of saved modules are counted twice, as frozen and as trained.
        num_frozen, num_parameters = num_parameters, num_trained
    # Two moments, with 8 bits each also a float32 scale for 256 of them.
    moments = 8.0 if config.optimizer.state_bits == 32 else 2 * (1 + 4 / 256)
    states = moments if stage == 0 else (4 + moments) / world_size
    if deepspeed.offload_optimizer:
        states = 0.0
    is_quantized = config.lora is not None and config.lora.quantization is not None
    frozen = num_frozen * (_NF4_BYTES if is_quantized else weights)
    trained = num_parameters * (weights + states)
    return frozen + trained + _gradient_bytes(num_parameters, config, world_size)


def _gradient_bytes(num_parameters: int, config: TrainConfig, world_size: int) -> float:
    """Return the bytes of float32 gradients, of buckets and of the step's copy on one rank."""
    deepspeed = config.deepspeed
    is_float32, is_offloaded = deepspeed.precision == "float32", deepspeed.offload_optimizer
    share = 4 * num_parameters / world_size
    bucket = min(num_parameters, BUCKET_ELEMENTS)
    match deepspeed.zero_stage:
        case 0:
            return 4 * num_parameters + 4 * bucket
        case 1 if not is_float32 and not is_offloaded:
            # BF16_Optimizer keeps all gradients on each rank and needs no bucket.
            return 4 * num_parameters
        case 1:
            return 4 * num_parameters + max(4 * bucket, share)
        case 2:
            # With offload, only float32 gradients are summed in CPU memory.
            kept = 0.0 if is_offloaded and is_float32 else share
            return kept + max(8 * bucket, share if is_float32 else 0.0)
    return (0.0 if is_offloaded else share) + 12 * bucket
