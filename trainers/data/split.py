"""Which examples are held out: the same ones in every trial that holds out as many."""

import hashlib
import json
from itertools import groupby

from trainers.data.examples import Example
from trainers.foundation.errors import InputError, Problem


def split_heldout(
    examples: list[Example], *, heldout_examples: int, seed: int
) -> tuple[list[Example], list[Example]]:
    """(training examples, held-out examples), each in an order drawn by `seed`.

    Who is held out and in which order depends on the seed and on what the examples say, not on
    how the file orders them. Examples with the same prompt stay on one side: white space aside,
    and judged by the last user turn alone, since that is all that some templates show. A prompt
    that more examples share than still fit is left to training, so when nearly all prompts are
    shared fewer than `heldout_examples` may be held out.

    Raises:
        InputError: no example would be left to train on, or none can be held out.
    """
    if heldout_examples >= len(examples):
        raise InputError(
            Problem(
                message=(
                    f"data.heldout_examples must be smaller than the number of examples, got"
                    f" {heldout_examples} of {len(examples)}: none is left to train on"
                ),
                fix=(
                    f"set data.heldout_examples to {len(examples) - 1} or less, or give more data"
                    if len(examples) > 1
                    else "give at least 2 examples, one to train on and one to hold out"
                ),
            )
        )
    drawn = sorted(examples, key=lambda example: _draw(seed, example))
    train: list[Example] = []
    heldout: list[Example] = []
    groups = [list(group) for _, group in groupby(drawn, key=_prompt_key)]
    for alike in groups:
        fits = len(heldout) + len(alike) <= heldout_examples
        (heldout if fits else train).extend(alike)
    if heldout_examples and not heldout:
        raise InputError(
            Problem(
                message=(
                    f"data.heldout_examples is {heldout_examples}, but every prompt is shared by"
                    " more examples than that, and those must stay together"
                ),
                fix=(
                    f"set data.heldout_examples to {min(map(len, groups))} or more, or remove"
                    " examples with the same prompt"
                    if len(groups) > 1
                    else "give examples with other prompts: all have the same one, and what is"
                    " held out must not have been trained on"
                ),
            )
        )
    # Drawn anew: so far examples with the same prompt stand side by side.
    train.sort(key=lambda example: _digest(seed, _content(example)))
    return train, heldout


def _draw(seed: int, example: Example) -> tuple[str, str, str]:
    # The id decides only between examples that say the same.
    return _digest(seed, _prompt_key(example)), _content(example), example.id


def _prompt_key(example: Example) -> str:
    return " ".join(example.prompt.split())


def _content(example: Example) -> str:
    return json.dumps([[message.role, message.content] for message in example.messages])


def _digest(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}\n{text}".encode()).hexdigest()
