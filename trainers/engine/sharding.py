"""Load a model in shards: under ZeRO 3, each rank keeps only its share of every weight."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

from torch import Tensor, nn

from trainers.config import OptimizerConfig, TrainConfig
from trainers.engine.deepspeed_settings import deepspeed_settings
from trainers.engine.ranks import Ranks
from trainers.engine.zero import init_deepspeed

# glibc's M_MMAP_THRESHOLD, and the value that it adapts to after a large block was freed.
_MMAP_THRESHOLD = -3
_LARGEST_THRESHOLD = 32 * 2**20


@contextmanager
def sharded_loading(config: TrainConfig, ranks: Ranks) -> Iterator[None]:
    """Make transformers' `from_pretrained` partition each weight over the ranks as it is built.

    Collective: all ranks must load the same model in this context. Rank 0 reads the files.
    """
    # It imports deepspeed, whose accelerator trainers.engine.zero must choose first.
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    init_deepspeed(ranks)
    settings = deepspeed_settings(
        OptimizerConfig().max_grad_norm,
        config.deepspeed,
        ranks.world_size,
        config.batch.micro_batch_size,
    )
    # transformers holds only a weak reference to it.
    shared_config = HfDeepSpeedConfig(settings)
    try:
        with _large_blocks_are_returned():
            yield
    finally:
        unset_hf_deepspeed_config()
        del shared_config


@contextmanager
def _large_blocks_are_returned() -> Iterator[None]:
    """Make glibc return each freed block of 1 MiB or more to the system.

    Each weight is built whole, partitioned and freed. On a CPU, the freed blocks between the shares
    would take as much memory as the shares.
    """
    set_option: Any = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:  # another C library
        yield
        return
    set_option(_MMAP_THRESHOLD, 2**20)
    try:
        yield
    finally:
        set_option(_MMAP_THRESHOLD, _LARGEST_THRESHOLD)


def full_shape(parameter: Tensor) -> tuple[int, ...]:
    """Return the shape of a parameter that may be partitioned."""
    shape: Any = getattr(parameter, "ds_shape", parameter.shape)
    return tuple(shape)


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters of a model that may be partitioned or quantized."""
    return sum(prod(_shape(parameter)) for parameter in model.parameters())


def _shape(parameter: Any) -> tuple[int, ...]:
    # A 4-bit weight is stored in bytes; its state has the shape.
    state = getattr(parameter, "quant_state", None)
    return full_shape(parameter) if state is None else tuple(state.shape)
