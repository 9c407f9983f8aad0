"""Seeds as blocks: what a seed does to all weights alike is no noise between weights.

With one seed go one order of the data and one held-out choice of everything random, so that trials
of a seed move together. Where each seed was tried at enough weights, its level is taken out of the
comparison, as a block's is. Whether that is done depends on which trials there are, never on their
scores: a choice by the scores would make the tests too sure.

Source: Fisher, The Design of Experiments (1935), on randomised blocks.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

# A block costs freedom: with fewer left, quantiles of t grow by more than blocks may save.
MIN_FREEDOM = 4
# A seed of a single weight says nothing beside its own level. More of what the curves are known by
# is not given up.
_MIN_KEPT = 2 / 3


def seed_blocks(
    terms: Array, num_intercepts: int, num_curve_terms: int, cell: Ints, seed: Sequence[str]
) -> Array:
    """The columns (T, B) to add to `terms` (T, P), each with mean 0; B = 0 where seeds are none.

    Args:
        terms: first the intercepts of the cells, then the curves, then anything else.
        cell: each trial's cell (T), from 0.
        seed: each trial's seed (T); the same seed in two cells is two blocks.
    """
    none = np.zeros((len(terms), 0))
    blocks = _contrasts(num_intercepts, cell, seed)
    both = np.column_stack([terms, blocks])
    is_settled = np.linalg.matrix_rank(terms) == terms.shape[1]
    if not blocks.shape[1] or not is_settled or np.linalg.matrix_rank(both) < both.shape[1]:
        return none
    if len(terms) - both.shape[1] < MIN_FREEDOM:
        return none
    curves = slice(num_intercepts, num_intercepts + num_curve_terms)
    without = np.linalg.inv(terms.T @ terms)[curves, curves]
    beside = np.linalg.inv(both.T @ both)[curves, curves]
    # The worst known combination of the curves' terms keeps so much of its information.
    kept = np.linalg.eigvals(np.linalg.solve(beside, without)).real.min()
    return blocks if kept >= _MIN_KEPT - 1e-9 else none


def _contrasts(num_cells: int, cell: Ints, seed: Sequence[str]) -> Array:
    """(T, B): each seed of a cell but its first, against the cell's mean."""
    columns = []
    for number in range(num_cells):
        in_cell = cell == number
        names = dict.fromkeys(one for one, here in zip(seed, in_cell, strict=True) if here)
        for name in list(names)[1:]:
            own = in_cell & np.array([one == name for one in seed])
            columns.append(np.where(in_cell, own - own[in_cell].mean(), 0.0))
    return np.column_stack(columns) if columns else np.zeros((len(seed), 0))
