"""Split examples into training and held-out examples, the same way in every trial."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainers.data.examples import Example
from trainers.foundation.errors import InputError, Problem

Indices = NDArray[np.int64]
# 128 bits of a SHA-256, as two numbers with the order of its bytes; (N, 2).
Digests = NDArray[np.uint64]


def split_heldout(
    examples: Sequence[Example], *, heldout_examples: int, seed: int
) -> tuple[Indices, Indices]:
    """Return the indices of (training examples, held-out examples), each shuffled by `seed`.

    The split and the order depend on the seed and the texts of the examples, not on their order in
    the file. Examples with the same prompt are never split between both sides. Only the last user
    turn is compared, because some templates use nothing else; white space is ignored. A group of
    examples with the same prompt that exceeds the remaining held-out places goes to training. So
    fewer than `heldout_examples` may be held out if nearly all prompts are shared.

    The examples are read once and not kept; memory is below 100 bytes per example.

    Raises:
        InputError: no example remains for training, or none can be held out.
    """
    if heldout_examples >= len(examples):
        raise InputError(_too_few_problem(heldout_examples, len(examples)))
    prompts, contents = _digests(examples, seed)
    by_prompt = _order(prompts)
    starts, sizes = _runs(prompts[by_prompt])
    heldout: list[int] = []
    for start, size in zip(starts, sizes, strict=True):
        if len(heldout) == heldout_examples:
            break
        if len(heldout) + size <= heldout_examples:
            # Texts, not digests, order the examples of a group.
            group = {int(i): examples[i] for i in by_prompt[start : start + size]}
            heldout += sorted(group, key=lambda i: (_content(group[i]), group[i].id))
    if heldout_examples and not heldout:
        raise InputError(_shared_prompts_problem(heldout_examples, sizes))
    is_train = np.ones(len(examples), dtype=np.bool_)
    is_train[heldout] = False
    train = np.flatnonzero(is_train)
    # Shuffle again, because examples with the same prompt are still adjacent.
    train = train[_order(contents[train])]
    for start, size in zip(*_runs(contents[train]), strict=True):
        if size > 1:  # Ids order examples with the same texts.
            same = train[start : start + size]
            same[:] = sorted(same, key=lambda index: examples[index].id)
    return train, np.array(heldout, dtype=np.int64)


def _digests(examples: Sequence[Example], seed: int) -> tuple[Digests, Digests]:
    """Return the digest of each example's prompt, and that of its content."""
    digests = bytearray()
    for example in examples:
        digests += _digest(seed, _prompt_key(example)) + _digest(seed, _content(example))
    numbers = np.frombuffer(digests, dtype=">u8").astype(np.uint64).reshape(-1, 4)
    return numbers[:, :2], numbers[:, 2:]


def _order(digests: Digests) -> Indices:
    """Return the stable order of the digests."""
    return np.lexsort((digests[:, 1], digests[:, 0]))


def _runs(digests: Digests) -> tuple[list[int], list[int]]:
    """Return the start and the length of each run of equal digests."""
    is_start = np.ones(len(digests) + 1, dtype=np.bool_)
    is_start[1:-1] = (digests[1:] != digests[:-1]).any(axis=1)
    bounds = np.flatnonzero(is_start)
    return bounds[:-1].tolist(), np.diff(bounds).tolist()


def _digest(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{text}".encode()).digest()[:16]


def _prompt_key(example: Example) -> str:
    if example.tokens is not None:
        return json.dumps(example.tokens.input_ids[: example.tokens.completion_start])
    return " ".join(example.prompt.split())


def _content(example: Example) -> str:
    if example.tokens is not None:
        return json.dumps(example.tokens.input_ids)
    return json.dumps([[message.role, message.content] for message in example.messages])


def _too_few_problem(heldout_examples: int, num_examples: int) -> Problem:
    return Problem(
        message=(
            f"data.heldout_examples must be smaller than the number of examples, got"
            f" {heldout_examples} of {num_examples}: none remains for training"
        ),
        fix=(
            f"set data.heldout_examples to {num_examples - 1} or less, or use more data"
            if num_examples > 1
            else "use at least 2 examples, one for training and one held out"
        ),
    )


def _shared_prompts_problem(heldout_examples: int, group_sizes: Sequence[int]) -> Problem:
    return Problem(
        message=(
            f"data.heldout_examples is {heldout_examples}, but every prompt is shared by"
            " more examples, and examples with one prompt must stay together"
        ),
        fix=(
            f"set data.heldout_examples to {min(group_sizes)} or more, or remove"
            " examples with the same prompt"
            if len(group_sizes) > 1
            else "add examples with other prompts: all have the same one, and a held-out"
            " prompt must not be in the training data"
        ),
    )
