"""Locate the parts of a message's content that have weights in the text that a template makes."""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from trainers.data.examples import Example, Message
from trainers.foundation.errors import InputError, Problem

_OPEN = "<think>"
_MARKER = re.compile("\ue000(\\d+)\ue001")


@dataclass(frozen=True)
class PartRegion:
    """The characters `start` to `stop` of a rendered example that show a weighted part."""

    start: int
    stop: int
    message: int
    weight: float


def locate_parts(
    example: Example, text: str, render: Callable[[Example], str]
) -> Iterator[PartRegion]:
    """Yield the regions of `text`, the rendered `example`, that show parts with weights.

    The example is rendered again with markers at the borders of the parts. Without the markers, the
    result must be the same text.

    Raises:
        InputError: the template changes the text of a message that has such parts.
    """
    for index, message in enumerate(example.messages):
        if not message.part_weights:
            continue
        borders = sorted({b for part in message.part_weights for b in (part.start, part.stop)})
        found = next(_found_borders(example, index, borders, text, render), None)
        if found is None:
            raise InputError(
                Problem(
                    message=f"messages[{index}] has parts with weights, but the template changes"
                    " its text, so their tokens are not known",
                    where=example.id,
                    fix="give the whole message one weight, or set data.template to a Jinja file"
                    " that renders `messages` unchanged",
                )
            )
        for part in message.part_weights:
            yield PartRegion(found[part.start], found[part.stop], index, part.weight)


def _found_borders(
    example: Example,
    index: int,
    borders: Sequence[int],
    text: str,
    render: Callable[[Example], str],
) -> Iterator[dict[int, int]]:
    """Yield the position in `text` of each border in the content of message `index`.

    A template may trim the content on one side or on both. Where it does, borders within the
    trimmed white space move to the text. If it also changes white space within the content, such as
    that after thinking, borders move to the next word.
    """
    message = example.messages[index]
    content = message.content
    text_start, text_stop = _skip_space(content, 0), len(content.rstrip())
    for skips_space, low, high in itertools.product(
        (False, True),
        dict.fromkeys((0, text_start)),
        dict.fromkeys((len(content), text_stop)),
    ):
        moved = [_skip_space(content, border) if skips_space else border for border in borders]
        marked = _marked(message, [min(max(border, low), high) for border in moved])
        messages = [*example.messages[:index], marked, *example.messages[index + 1 :]]
        pieces = _MARKER.split(render(replace(example, messages=tuple(messages))))
        if "".join(pieces[::2]) != text or pieces[1::2] != [str(n) for n in range(len(borders))]:
            continue
        ends = itertools.accumulate(len(piece) for piece in pieces[::2])
        found = dict(zip(borders, ends, strict=False))
        first = borders[0]
        if content.startswith(_OPEN, _skip_space(content, first)):
            found[first] = text.rfind(_OPEN, 0, found[first])
        if found[first] >= 0:
            yield found


def _marked(message: Message, borders: Sequence[int]) -> Message:
    """Return the message with a marker at each border.

    Templates and `trainers.data.chat_answers` look for a thinking tag at the start of an answer, so
    the first marker is after such a tag.
    """
    content = message.content
    first = _skip_space(content, borders[0])
    if content.startswith(_OPEN, first):
        borders = [_skip_space(content, first + len(_OPEN)), *borders[1:]]
    ends = [*borders, len(content)]
    marked = content[: ends[0]] + "".join(
        f"\ue000{number}\ue001{content[start:stop]}"
        for number, (start, stop) in enumerate(itertools.pairwise(ends))
    )
    return replace(message, content=marked)


def _skip_space(text: str, position: int) -> int:
    """Return the position of the next character of `text` that is not white space."""
    return len(text) - len(text[position:].lstrip())
