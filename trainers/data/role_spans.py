"""Pieces of a rendered example, each with its role and the weight that the data gives to it."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from trainers.data.chat_answers import thinking_of
from trainers.data.chat_spans import Span
from trainers.data.examples import Example, Message
from trainers.data.part_weights import PartRegion
from trainers.data.roles import Role
from trainers.data_config import CompletionTurns


@dataclass(frozen=True)
class RoleSpan:
    """A piece of rendered text; `message` is the index of its message in the example.

    `weight` is the loss weight that the data gives to it, NaN if it gives none.
    """

    text: str
    role: Role
    message: int | None = None
    weight: float = math.nan


@dataclass(frozen=True)
class Rendered:
    """An example as text; `has_end` is True if the completion already includes its end token."""

    prompt: list[RoleSpan]
    completion: list[RoleSpan]
    has_end: bool = False

    @property
    def text(self) -> str:
        return "".join(span.text for span in (*self.prompt, *self.completion))


@dataclass(frozen=True)
class TurnRoles:
    """Which assistant turns are completions, by `data.completion_turns` and the data."""

    completion_turns: CompletionTurns

    def earlier_completions(self, example: Example) -> list[int]:
        """Return the indices of earlier assistant turns that belong to the completion."""
        return [
            index
            for index, turn in enumerate(example.messages[:-1])
            if turn.role == "assistant" and self._is_completion(turn)
        ]

    def excluded_answers(self, example: Example) -> list[int]:
        """Return the indices of the assistant turns to which the data gives weight 0."""
        return [
            index
            for index, turn in enumerate(example.messages)
            if turn.role == "assistant" and turn.train is False
        ]

    def role_of(self, turn: Message) -> Role:
        """Return the role of a turn before the last."""
        if turn.train is False:
            return Role.EXCLUDED
        if turn.role == "assistant":
            return Role.COMPLETION if self._is_completion(turn) else Role.HISTORY
        return Role[turn.role.upper()]

    def _is_completion(self, turn: Message) -> bool:
        return self.completion_turns == "all" if turn.train is None else turn.train


def with_roles(spans: Sequence[Span], messages: Sequence[Message]) -> list[RoleSpan]:
    found = []
    for span in spans:
        turn = None if span.message is None else messages[span.message]
        is_excluded = turn is not None and turn.train is False
        role = Role.EXCLUDED if is_excluded else Role[span.part.upper()]
        # A part of an answer that the template's markers leave out has no weight of its turn.
        weight = math.nan if turn is None or span.part == "template" else weight_of(turn)
        found.append(RoleSpan(span.text, role, span.message, weight))
    return found


def split_at_parts(
    spans: Iterable[RoleSpan], start: int, regions: Sequence[PartRegion]
) -> Iterator[RoleSpan]:
    """Yield the spans, split where a weighted part of their message begins or ends.

    `start` is the position of the first span in the text of the regions.
    """
    for span in spans:
        stop = start + len(span.text)
        shown = [region for region in regions if region.message == span.message]
        borders = {border for region in shown for border in (region.start, region.stop)}
        positions = [start, *sorted(border for border in borders if start < border < stop), stop]
        for low, high in itertools.pairwise(positions):
            piece = replace(span, text=span.text[low - start : high - start])
            for region in shown:
                if region.start <= low < region.stop:
                    factor = 1.0 if math.isnan(span.weight) else span.weight
                    piece = replace(piece, weight=factor * region.weight)
            yield replace(piece, role=Role.EXCLUDED) if piece.weight == 0 else piece
        start = stop


def texts_to_cut(
    spans: Sequence[RoleSpan], messages: Sequence[Message]
) -> Iterator[tuple[int, int]]:
    """Yield first and last character of each text of a user or a tool."""

    def message_to_cut(span: RoleSpan) -> int | None:
        """Return the index of a message that may be cut; -1 for a user text of no message."""
        if span.message is not None:
            return span.message if messages[span.message].role in ("user", "tool") else None
        return -1 if span.role == Role.USER else None

    start = 0
    for message, text in itertools.groupby(spans, key=message_to_cut):
        stop = start + sum(len(span.text) for span in text)
        if message is not None and start < stop:
            yield start, stop
        start = stop


def hides_thinking(example: Example, prompt: Sequence[RoleSpan]) -> bool:
    """Return whether the prompt leaves out the thinking of an earlier turn."""
    thinking = [thinking_of(turn.to_template()) for turn in example.messages[:-1]]
    text = "".join(span.text for span in prompt) if any(thinking) else ""
    return any(one not in text for one in thinking)


def weight_of(turn: Message) -> float:
    return math.nan if turn.weight is None else turn.weight


def completion_of(example: Example) -> list[RoleSpan]:
    last = len(example.messages) - 1
    weight = weight_of(example.messages[last])
    return [RoleSpan(example.completion, Role.COMPLETION, last, weight)]


def without_end_token(rendered: Rendered, end_token: str) -> Rendered:
    """Return the rendered example without an end token that the data's answer already has.

    Only of an answer without one of the template's, after which `end_token` follows.
    """
    if rendered.has_end or not rendered.completion:
        return rendered
    *others, last = rendered.completion
    text = last.text.rstrip()
    if not text.endswith(end_token):
        return rendered
    shortened = replace(last, text=text.removesuffix(end_token))
    return replace(rendered, completion=[*others, shortened])


def user_text(example: Example, text: str) -> RoleSpan:
    """Return a text of the last user turn."""
    for index, turn in reversed(list(enumerate(example.messages))):
        if turn.role == "user":
            role = Role.EXCLUDED if turn.train is False else Role.USER
            return RoleSpan(text, role, index, weight_of(turn))
    return RoleSpan(text, Role.USER)
