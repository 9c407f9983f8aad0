"""Align two token sequences of the same example."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher


@dataclass(frozen=True)
class Block:
    """Tokens `first` of one sequence and `second` of the other; `is_equal` if they are the same."""

    is_equal: bool
    first: range
    second: range


def align(first: Sequence[int], second: Sequence[int]) -> Iterator[Block]:
    """Yield the blocks of both sequences in order.

    Most sequences differ in a few places, so common ends are split off before the search for common
    parts, whose time grows with the square of the length.
    """
    shortest = min(len(first), len(second))
    head = _num_common(first, second, shortest)
    tail = _num_common(first[::-1], second[::-1], shortest - head)
    if head:
        yield Block(True, range(head), range(head))
    middle = list(first[head : len(first) - tail]), list(second[head : len(second) - tail])
    for kind, a, b, c, d in SequenceMatcher(None, *middle, autojunk=False).get_opcodes():
        yield Block(kind == "equal", range(head + a, head + b), range(head + c, head + d))
    if tail:
        ends = range(len(first) - tail, len(first)), range(len(second) - tail, len(second))
        yield Block(True, *ends)


def _num_common(first: Sequence[int], second: Sequence[int], most: int) -> int:
    """Return the number of equal tokens at the start, at most `most`."""
    return next((i for i in range(most) if first[i] != second[i]), most)
