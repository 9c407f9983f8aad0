"""A loaded checkpoint, and the interface of the engines that generate text with it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from evals.engine.token_logprobs import TokenScorer
from trainers.data.template import Template
from trainers.foundation.errors import InputError, Problem

OutputCallback = Callable[[int, list[int]], None]
"""Called with the index of a prompt and its output tokens as soon as they are generated."""


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How outputs are generated; greedily unless `sampling` has settings of transformers.

    `max_rows` is the maximum number of outputs that are generated at the same time; None: the
    engine chooses. An output ends after `max_new_tokens` tokens, before an end token, or after one
    of `stop_strings`.
    """

    max_new_tokens: int
    max_rows: int | None = None
    stop_strings: Sequence[str] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)


class GenerationEngine(Protocol):
    """Generates the outputs of many prompts. `name` is that of the setting `evals.engine`."""

    name: str

    def generate(
        self,
        loaded: "LoadedModel",
        prompts: Sequence[list[int]],
        settings: GenerationSettings,
        on_output: OutputCallback,
    ) -> None:
        """Call `on_output` once for each prompt, in any order; outputs exclude the end token.

        Raises:
            TrainingError: the logits of a token are not finite, or the engine has failed.
        """

    def close(self) -> None:
        """Release memory and processes. A closed engine starts again when it is used."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in evaluation mode, with its tokenizer and its prompt template.

    `eos_token_ids` are the tokens that end a completion: the tokenizer's end token, which training
    appends, and those of the checkpoint's generation config. `max_length` limits the tokens of an
    example. `special_ids` are the ids of tokens without text, such as those that begin and end a
    turn.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: Template
    scorer: TokenScorer
    engine: GenerationEngine
    max_length: int
    eos_token_ids: list[int]
    special_ids: frozenset[int]

    @property
    def device(self) -> torch.device:
        """Return the device of the model and its inputs."""
        device: torch.device = self.model.device
        return device

    @property
    def max_positions(self) -> int | None:
        """Return the model's number of positions; None if its config does not specify it."""
        value = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(value) if value else None

    def prompt_capacity(self, max_new_tokens: int, *, name: str) -> int:
        """Return the maximum number of prompt tokens if the output has `max_new_tokens`.

        Args:
            name: the evaluation, for the message.

        Raises:
            InputError: the output alone needs all positions of the model.
        """
        if self.max_positions is None:
            return self.max_length
        if max_new_tokens >= self.max_positions:
            raise InputError(
                Problem(
                    message=f"max_new_tokens of {name} must be less than the model's"
                    f" {self.max_positions} positions, got {max_new_tokens}",
                    where="evals",
                    fix="reduce it",
                )
            )
        return self.max_positions - max_new_tokens

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, including special tokens."""
        text = self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text


def make_generation_config(**settings: Any) -> GenerationConfig:
    """Return a generation config with only these settings and none of the checkpoint's."""
    make: Any = GenerationConfig
    config: GenerationConfig = make(**settings)
    return config
