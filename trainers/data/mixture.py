"""Mix several sources: how often each training example is used in one epoch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError, Problem


def mix(source_of: Sequence[int], config: DataConfig) -> NDArray[np.int64]:
    """Return the training examples of one epoch as indices of `source_of`, shuffled by data.seed.

    Whole passes use every example of a source; the rest is the first part of the source. A mixture
    that uses every example once keeps the order.

    Args:
        source_of: the index in `config.sources` of each training example, in an order that was
            shuffled by data.seed.

    Raises:
        InputError: a source would not be used at all.
    """
    sources = np.asarray(source_of, dtype=np.int64)
    if all(source.repeat == 1 and source.proportion is None for source in config.sources):
        return np.arange(len(sources))
    sizes = np.bincount(sources, minlength=len(config.sources))
    uses = _num_uses(sizes, config)
    unused = [
        _unused_problem(index, int(sizes[index]), config.sources[index].path)
        for index in np.flatnonzero((uses == 0) | (sizes == 0)).tolist()
    ]
    if unused:
        raise InputError(unused)
    # np.resize repeats an array up to a length.
    chosen = [np.resize(np.flatnonzero(sources == i), count) for i, count in enumerate(uses)]
    return np.random.default_rng(config.seed).permutation(np.concatenate(chosen))


def _unused_problem(index: int, size: int, path: str) -> Problem:
    if size == 0:
        return Problem(
            message=f"all examples of data.sources[{index}] are held out",
            where=path,
            fix="lower data.heldout_examples, or remove the source",
        )
    return Problem(
        message=f"data.sources[{index}] would use none of its {size} training examples",
        where=path,
        fix="raise its repeat or proportion, or remove the source",
    )


def _num_uses(sizes: NDArray[np.int64], config: DataConfig) -> NDArray[np.int64]:
    """Return the number of training examples that each source contributes to an epoch."""
    if config.sources[0].proportion is None:
        factors = np.array([source.repeat for source in config.sources]) * sizes
    else:
        proportions = np.array([source.proportion for source in config.sources])
        factors = proportions / proportions.sum() * sizes.sum()
    return np.rint(factors).astype(np.int64)
