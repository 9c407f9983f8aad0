"""What a training or held-out example is, whatever file it came from."""

from dataclasses import dataclass
from typing import Literal, get_args

MessageRole = Literal["system", "user", "assistant"]
MESSAGE_ROLES: tuple[str, ...] = get_args(MessageRole)


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a chat."""

    role: MessageRole
    content: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """One chat that ends with an assistant turn: the completion.

    `id` is unique within its data set and names the place it was read from (`train.jsonl:37`).
    `instruction` and `input` are the two fields of an Alpaca record, kept apart because the
    Alpaca template words a record without an input differently; both are None for other forms.
    """

    id: str
    messages: tuple[Message, ...]
    instruction: str | None = None
    input: str | None = None

    @property
    def prompt(self) -> str:
        """The text of the last user turn."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def completion(self) -> str:
        """The text of the final assistant turn."""
        return self.messages[-1].content

    def inverted(self) -> "Example":
        """The same pair the other way round: the completion becomes the prompt.

        Source: arXiv 2401.13586, section on AlpacaDataShort (prompt inversion).
        """
        return pair(self.id, prompt=self.completion, completion=self.prompt)


def pair(id: str, *, prompt: str, completion: str) -> Example:
    """A single-turn example."""
    return Example(
        id=id,
        messages=(
            Message(role="user", content=prompt),
            Message(role="assistant", content=completion),
        ),
    )
