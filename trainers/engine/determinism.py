"""Deterministic algorithms: the same run on the same kind of device gives the same bits."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.deterministic

# Read by transformers for flash-attn's kernels. torch's own attention follows its global switch.
_FLASH_ATTENTION = "FLASH_ATTENTION_DETERMINISTIC"


@contextmanager
def deterministic_algorithms(is_on: bool) -> Iterator[None]:
    """Use only deterministic algorithms in this context, if `is_on`.

    An operation without one raises a RuntimeError that names it. Without `is_on`, the backward pass
    of attention on CUDA adds in an order that changes from run to run.

    Source: https://docs.pytorch.org/docs/stable/notes/randomness.html; torch's attention, padded
    and varlen, reads the switch in aten/src/ATen/native/transformers/cuda/attention_backward.cu.
    """
    if not is_on:
        yield
        return
    # A property of the module, which its type annotations lack.
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    was_on = torch.are_deterministic_algorithms_enabled()
    warned_only = torch.is_deterministic_algorithms_warn_only_enabled()
    before = os.environ.get(_FLASH_ATTENTION)
    # Not warn_only, with which attention stays nondeterministic.
    torch.use_deterministic_algorithms(True)
    os.environ[_FLASH_ATTENTION] = "1"
    # Filling DeepSpeed's buckets, which are written before they are read, took 16 times the step of
    # a tiny model on a CPU.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=warned_only)
        memory.fill_uninitialized_memory = fills
        if before is None:
            del os.environ[_FLASH_ATTENTION]
        else:
            os.environ[_FLASH_ATTENTION] = before
