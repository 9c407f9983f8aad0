"""Pieces of a rendered chat, each with the part of the chat that it belongs to."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from trainers.data.chat_answers import ChatRenderingError, split_thinking, thinking_of
from trainers.data.template_spans import Piece

_MARKER = "\ue0000\ue001"  # Templates that change case keep it.

Part = Literal["template", "system", "user", "tool", "history", "thinking", "completion"]
"""What a character belongs to. History is an earlier assistant turn that is part of the prompt."""

PART_OF_ROLE: Mapping[str, Part] = {
    **{"system": "system", "developer": "system"},
    "user": "user",
    **{"tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool"},
    "assistant": "history",
}


@dataclass(frozen=True)
class Span:
    """A piece of rendered text; `message` is the index of its message in the chat."""

    text: str
    part: Part
    message: int | None = None


@dataclass(frozen=True, kw_only=True)
class RenderedChat:
    """A chat as text; the completion ends with `end_token`, or `end_token` is None.

    The prompt is exactly the template's own text, including the generation prompt.
    """

    prompt: tuple[Span, ...]
    completion: tuple[Span, ...]
    end_token: str | None


def text_length(spans: Sequence[Span]) -> int:
    """Return the number of characters of all spans."""
    return sum(len(span.text) for span in spans)


def within_ranges(
    spans: Sequence[Span], ranges: Sequence[tuple[int, int]], *, start: int
) -> list[Span]:
    """Return the spans, in which completion and thinking outside of `ranges` become template.

    Args:
        ranges: start and end of texts that the model generates, in characters of the whole chat.
        start: position of the first span.
    """
    result: list[Span] = []
    for span in spans:
        stop = start + len(span.text)
        if span.part not in ("completion", "thinking"):
            result.append(span)
            start = stop
            continue
        inside = [(max(a, start), min(b, stop)) for a, b in ranges if a < stop and b > start]
        borders = sorted({start, stop, *(border for one in inside for border in one)})
        for a, b in itertools.pairwise(borders):
            is_generated = any(first <= a and b <= last for first, last in inside)
            part = span.part if is_generated else "template"
            result.append(replace(span, text=span.text[a - start : b - start], part=part))
        start = stop
    return result


def replace_spans(spans: Sequence[Span], start: int, new: Sequence[Span]) -> list[Span]:
    """Return `spans` with `new` from character `start` on; the text is the same."""
    end = start + sum(len(span.text) for span in new)
    before: list[Span] = []
    after: list[Span] = []
    position = 0
    for span in spans:
        stop = position + len(span.text)
        if position < start:
            before.append(replace(span, text=span.text[: start - position]))
        if stop > end:
            after.append(replace(span, text=span.text[max(0, end - position) :]))
        position = stop
    return [*before, *new, *after]


def locate_texts(
    texts: Sequence[str], prompt: str, render: Callable[[Sequence[str]], str]
) -> list[Piece]:
    """Return the pieces of `prompt` that show each text, even if the template changes the text.

    Each text in turn is replaced by a marker. The prompt's text at the marker's position is the
    text as the template renders it, for example trimmed or without its thinking.
    """
    found: list[tuple[int, int, int]] = []
    for index, text in enumerate(texts):

        def with_text(changed: str, index: int = index) -> str:
            return render([*texts[:index], changed, *texts[index + 1 :]])

        region = _locate_text(text, prompt, with_text)
        if region is None:
            raise ChatRenderingError(
                f"the chat template does not show the text of a message:"
                f" {json.dumps(text[:40], ensure_ascii=False)}"
            )
        found.append((*region, index))
    pieces: list[Piece] = []
    position = 0
    for start, end, index in sorted(found):
        if start < position:
            raise ChatRenderingError("the chat template mixes the texts of two messages")
        pieces += [(prompt[position:start], None), (prompt[start:end], index)]
        position = end
    return [*pieces, (prompt[position:], None)]


def _locate_text(text: str, prompt: str, with_text: Callable[[str], str]) -> tuple[int, int] | None:
    """Return start and end of a message's text in `prompt`; None if it is not there.

    Some templates write the thinking of a text in another place or form. If they show it, the
    marker replaces only what follows it, or its words if nothing does.

    Args:
        with_text: renders the prompt with another text in place of `text`.
    """
    head, rest = split_thinking({"content": text}, opens_thinking=False)
    beside_thinking = head + _MARKER if rest.strip() else f"<think>{_MARKER}</think>"
    for changed in (_MARKER, beside_thinking) if head else (_MARKER,):
        before, is_there, after = with_text(changed).partition(_MARKER)
        start, end = len(before), len(prompt) - len(after)
        if is_there and prompt.startswith(before) and prompt.endswith(after) and start <= end:
            opening = before.rfind("<think>") if changed != _MARKER else -1
            shows_thinking = thinking_of({"content": head}) in prompt[opening:end]
            return (opening if opening >= 0 and shows_thinking else start), end
    return None
