"""Token roles, and examples as token ids with roles."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Role(IntEnum):
    """The part of an example that a token belongs to; PADDING belongs to none.

    HISTORY is an earlier assistant turn that is part of the prompt. THINKING is the thinking before
    an answer. EXCLUDED is a turn to which the data gives weight 0.
    """

    PADDING = 0
    SYSTEM = 1
    USER = 2
    TEMPLATE = 3
    COMPLETION = 4
    TOOL = 5
    HISTORY = 6
    THINKING = 7
    EXCLUDED = 8


PROMPT_ROLES = (Role.SYSTEM, Role.USER, Role.TEMPLATE, Role.TOOL, Role.HISTORY)
COMPLETION_ROLES = (Role.COMPLETION, Role.THINKING)


@dataclass(frozen=True, kw_only=True)
class EncodedExample:
    """One tokenised example: `input_ids` and the `Role` of each token, both (T,).

    `weights` (T,) are the loss weights that the data gives to tokens, NaN for a token without one;
    None if the data gives none to this example. `sample_weight` is that of the whole example.
    """

    id: str
    input_ids: list[int] | NDArray[np.int32]
    roles: list[int] | NDArray[np.int8]
    num_truncated_tokens: int = 0
    weights: list[float] | NDArray[np.float32] | None = None
    sample_weight: float = 1.0

    @property
    def num_completion_tokens(self) -> int:
        return int(np.isin(self.roles, COMPLETION_ROLES).sum())

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.roles) - self.num_completion_tokens


@dataclass(frozen=True, kw_only=True)
class UntruncatedExample:
    """All tokens of an example with their roles. The completion ends with its end token.

    `weights` are those of `EncodedExample`, for the prompt followed by the completion.
    `prompt_texts` are the tokens of each text of a user or a tool in the prompt, which truncation
    may shorten. `prompt_offsets` are the first and last character of each token of the prompt.
    `hides_thinking`: the template leaves out the thinking of an earlier turn, as at inference.
    `hides_name`: it leaves out the name of a turn.
    """

    id: str
    prompt_ids: list[int]
    prompt_roles: list[int]
    completion_ids: list[int]
    completion_roles: list[int]
    weights: list[float] | None = None
    sample_weight: float = 1.0
    prompt_texts: tuple[range, ...] = ()
    prompt_offsets: list[tuple[int, int]] = field(default_factory=list, repr=False)
    hides_thinking: bool = False
    hides_name: bool = False

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)

    def encoded(self) -> EncodedExample:
        """Return the example with all its tokens."""
        return EncodedExample(
            id=self.id,
            input_ids=self.prompt_ids + self.completion_ids,
            roles=self.prompt_roles + self.completion_roles,
            weights=self.weights,
            sample_weight=self.sample_weight,
        )

    def select(self, indices: Sequence[int]) -> EncodedExample:
        """Return the example with only the tokens at `indices` of prompt and completion."""
        whole = self.encoded()
        return replace(
            whole,
            input_ids=[whole.input_ids[index] for index in indices],
            roles=[whole.roles[index] for index in indices],
            weights=whole.weights and [whole.weights[index] for index in indices],
        )
