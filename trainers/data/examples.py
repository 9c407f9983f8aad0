"""Training and held-out examples, independent of the file format."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from trainers.foundation.errors import InputError, Problem

MessageRole = Literal["system", "user", "assistant", "tool"]
# Names of roles that some chat templates have instead of ours (GLM 4: observation).
OTHER_NAMES_OF_ROLES: Mapping[str, MessageRole] = {
    "developer": "system",
    **{"function": "tool", "observation": "tool", "ipython": "tool"},
}


@dataclass(frozen=True, kw_only=True)
class PartWeight:
    """The loss weight of the characters `start` to `stop` of a message's content."""

    start: int
    stop: int
    weight: float


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a chat.

    `fields` are further fields for the chat template, such as `tool_calls` and `reasoning_content`,
    and `role` if the data has another name for the role.
    `train` is the choice in the data: True makes an assistant turn a completion, False gives any
    turn weight 0. If it is None, the settings decide. `weight` is the loss weight above 0 that the
    data gives to the whole turn, `part_weights` those of parts of its content.
    """

    role: MessageRole
    content: str
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)
    train: bool | None = None
    weight: float | None = None
    part_weights: tuple[PartWeight, ...] = ()

    def to_template(self) -> dict[str, Any]:
        """Return the message in the format of chat templates."""
        return {"role": self.role, "content": self.content, **self.fields}


@dataclass(frozen=True, kw_only=True)
class GivenTokens:
    """The tokens of a record that was tokenised before; all fields are (T,).

    `weights` are the loss weights in the data; None if it has none.
    """

    input_ids: tuple[int, ...]
    is_completion: tuple[bool, ...]
    weights: tuple[float, ...] | None = None

    @property
    def completion_start(self) -> int:
        """Return the index of the first token of the last run of completion tokens."""
        last = len(self.input_ids) - 1 - self.is_completion[::-1].index(True)
        before = self.is_completion[:last]
        return last - before[::-1].index(False) if False in before else 0


@dataclass(frozen=True, kw_only=True)
class Example:
    """One chat that ends with an assistant turn, the completion, or its tokens.

    A tokenised example has `tokens` and no messages; its texts are empty.

    `id` is unique in its data set and names its source (`train.jsonl:37`). `instruction` and
    `input` are the two fields of an Alpaca record, because the Alpaca template depends on whether
    there is an input. Both are None for other forms. `tools` are definitions of tools for the chat
    template. `extras` contains the record's weights, tools and reasoning as canonical JSON, which
    distinguishes data sets, or a digest of its tokens; None if it has none of them.
    `sample_weight` is the weight of the whole example. `source` is the index of its data set in
    `data.sources`.
    """

    id: str
    messages: tuple[Message, ...]
    instruction: str | None = None
    input: str | None = None
    tools: tuple[Any, ...] | None = field(default=None, hash=False)
    extras: str | None = field(default=None, compare=False)
    source: int = field(default=0, compare=False)
    sample_weight: float = 1.0
    tokens: GivenTokens | None = None

    @property
    def prompt(self) -> str:
        """Return the text of the last user turn."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def completion(self) -> str:
        """Return the text of the final assistant turn."""
        return self.messages[-1].content if self.messages else ""

    def split_turns(self) -> list["Example"]:
        """Return an example for each assistant turn, with the chat up to it, as at inference.

        Turns to which the data gives weight 0 are left out, unless there are no others. The weights
        of an assistant turn apply only where it is the completion.
        """
        ends = [
            index
            for index, turn in enumerate(self.messages)
            if turn.role == "assistant" and turn.train is not False
        ]
        if len(ends) < 2:
            return [self if not ends else self._up_to(ends[0], self.id)]
        return [self._up_to(end, f"{self.id} messages[{end}]") for end in ends]

    def _up_to(self, end: int, id: str) -> "Example":
        history = (
            replace(
                turn, train=False if turn.train is False else None, weight=None, part_weights=()
            )
            if turn.role == "assistant"
            else turn
            for turn in self.messages[:end]
        )
        return replace(self, id=id, messages=(*history, self.messages[end]))

    def with_last_turn_as_completion(self) -> "Example":
        """Return the example with only its last turn as completion, the form that is scored.

        Its tokens have no weights from the data.
        """
        messages = (replace(m, train=None, weight=None, part_weights=()) for m in self.messages)
        tokens = self.tokens and replace(self.tokens, weights=None)
        return replace(self, messages=tuple(messages), tokens=tokens, sample_weight=1.0)

    def inverted(self) -> "Example":
        """Return the inverted example: prompt and completion are exchanged.

        Source: arXiv 2401.13586, section on AlpacaDataShort (prompt inversion).
        """
        return pair(self.id, prompt=self.completion, completion=self.prompt)


def pair(id: str, *, prompt: str, completion: str) -> Example:
    """Return a single-turn example."""
    return Example(
        id=id,
        messages=(
            Message(role="user", content=prompt),
            Message(role="assistant", content=completion),
        ),
    )


def check_texts(examples: Iterable[Example], purpose: str) -> None:
    """Check that the examples have texts.

    Raises:
        InputError: an example has only tokens.
    """
    tokenised = next((example for example in examples if example.tokens is not None), None)
    if tokenised is not None:
        raise InputError(
            Problem(
                message=f"{purpose} texts, but the record is tokenised (input_ids)",
                where=tokenised.id,
            )
        )
