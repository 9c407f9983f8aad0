"""What arXiv 2401.13586 explains its effect by: an unstable loss, and weights that drift away."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence

RSD_WINDOW = 10
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")


def loss_rsd(losses: Sequence[float], window: int = RSD_WINDOW) -> float | None:
    """Relative standard deviation of the training loss, comparable between weights.

    The mean, over consecutive windows of `window` steps, of standard deviation over mean: within
    a window the fall of the loss hardly counts, and the ratio is free of the loss's scale. None
    for fewer than `window` steps; a last part of a window is left out.
    """
    ratios = [
        statistics.stdev(part) / statistics.fmean(part)
        for start in range(0, len(losses) - window + 1, window)
        if statistics.fmean(part := losses[start : start + window]) > 0
    ]
    return statistics.fmean(ratios) if ratios else None


def distance(squared: Mapping[str, float]) -> float:
    """The L2 norm over all parameters, from the squared norm of each."""
    return math.sqrt(sum(squared.values()))


def distance_by_layer(squared: Mapping[str, float]) -> dict[str, float]:
    """The L2 norm by decoder layer, as `layer.0`; `other` for embeddings, head and last norm."""
    sums: dict[str, float] = {}
    for name, value in squared.items():
        found = _LAYER.search(name)
        layer = f"layer.{found[1]}" if found else "other"
        sums[layer] = sums.get(layer, 0.0) + value
    return {layer: math.sqrt(value) for layer, value in sums.items()}
