"""Diagnostics of arXiv 2401.13586: instability of the loss, and distance of the weights."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence

RSD_WINDOW = 10
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")


def loss_rsd(losses: Sequence[float], window: int = RSD_WINDOW) -> float | None:
    """Return the relative standard deviation of the training loss, comparable between weights.

    It is the mean of standard deviation / mean over consecutive windows of `window` steps. Within a
    window, the decrease of the loss has little effect, and the ratio does not depend on the loss's
    scale. An incomplete last window is not used. None for fewer than `window` steps.
    """
    ratios = [
        statistics.stdev(losses_in_window) / statistics.fmean(losses_in_window)
        for start in range(0, len(losses) - window + 1, window)
        if statistics.fmean(losses_in_window := losses[start : start + window]) > 0
    ]
    return statistics.fmean(ratios) if ratios else None


def total_distance(squared: Mapping[str, float]) -> float:
    """Return the L2 norm over all parameters, from the squared norm of each parameter."""
    return math.sqrt(sum(squared.values()))


def layer_distances(squared: Mapping[str, float]) -> dict[str, float]:
    """Return the L2 norm by decoder layer (`layer.0`); `other`: embeddings, head, last norm."""
    sums: dict[str, float] = {}
    for name, value in squared.items():
        found = _LAYER.search(name)
        layer = f"layer.{found[1]}" if found else "other"
        sums[layer] = sums.get(layer, 0.0) + value
    return {layer: math.sqrt(value) for layer, value in sums.items()}
