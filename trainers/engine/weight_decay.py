"""Which parameters the weight decay leaves out."""

from typing import Any

from torch import Tensor


def is_left_out(name: str, parameter: Tensor) -> bool:
    """Return whether a parameter, which may be partitioned, is a norm, a bias or another vector.

    The weights of norms are vectors, except that Cohere's norms of queries and keys have a row for
    each head. The biases of the experts of a layer are one matrix.
    """
    shape: Any = getattr(parameter, "ds_shape", parameter.shape)  # of all ranks
    is_norm = name.endswith(("norm.weight", "norm.bias"))
    return len(shape) < 2 or is_norm or name.endswith("bias")
