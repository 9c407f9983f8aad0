"""Compare an engine's weights with those before training, and pull them towards those."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from trainers.engine.flat_tensors import squared_distance
from trainers.engine.zero import ZeroEngine

# Returns up to `size` elements of a flattened weight, from its name, `start` and `size`.
ReadSlice = Callable[[str, int, int], Tensor]


@torch.no_grad()
def measure_squared_distances(
    engine: ZeroEngine, read: ReadSlice, is_measured: Callable[[str], bool] = lambda _: True
) -> dict[str, float]:
    """Return each parameter's squared L2 distance from the weights that `read` returns.

    Collective; each rank reads only its own partitions.

    Args:
        is_measured: whether a parameter of this name is in the result.
    """
    names = [name for name in engine.parameters if is_measured(name)]
    sums = torch.zeros(len(names), dtype=torch.float64)
    for index, name in enumerate(names):
        fragment, start = engine.local_weight(name)
        if fragment is None or (engine.is_replicated and not engine.ranks.is_main):
            continue
        sums[index] = squared_distance(fragment, _read(engine, read, name, start, fragment))
    return dict(zip(names, engine.ranks.sum(sums.tolist()), strict=True))


@torch.no_grad()
def own_partitions(engine: ZeroEngine, read: ReadSlice) -> dict[str, Tensor]:
    """Return what `read` returns for this rank's partition of each float32 weight, flat."""
    partitions: dict[str, Tensor] = {}
    for name, parameter in engine.parameters.items():
        fragment, start = engine.local_weight(name)
        if fragment is not None:
            # In the model's dtype, from which training started.
            partitions[name] = _read(engine, read, name, start, fragment).to(
                parameter.dtype, copy=True
            )
    return partitions


@torch.no_grad()
def apply_l2_sp(engine: ZeroEngine, pretrained: Mapping[str, Tensor], share: float) -> None:
    """Move every float32 weight by `share` of its distance towards `pretrained`.

    Source: L2-SP, arXiv 1802.01483; decoupled from the gradient, like AdamW's weight decay.

    Args:
        pretrained: this rank's partitions (`own_partitions`).
    """
    for name in engine.parameters:
        fragment, _ = engine.local_weight(name)
        if fragment is not None:
            fragment.lerp_(pretrained[name].to(fragment), share)


def _read(engine: ZeroEngine, read: ReadSlice, name: str, start: int, like: Tensor) -> Tensor:
    """Return a slice in the shape, dtype and device of `like`, padded with zeros.

    The values are rounded to the dtype in which the model was loaded.
    """
    values = read(name, start, like.numel()).to(engine.parameters[name].dtype).to(like)
    return nn.functional.pad(values, (0, like.numel() - values.numel()))
