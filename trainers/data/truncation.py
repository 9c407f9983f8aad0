"""Shorten examples that have too many tokens, and keep the structure of their chats.

First, the oldest exchanges are removed: a user turn and all turns up to the next user turn. The
rest is what the template renders for the shorter chat. If the last exchange alone is too long, the
texts of users and tools in it are cut on one side, the longest first (`longest_first` of Hugging
Face tokenizers). The start token, system turns, tool definitions, all text of the template and the
answer are kept. A cut text keeps the tokens that it has in the whole example.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

from trainers.data.examples import Example
from trainers.data.roles import EncodedExample, UntruncatedExample
from trainers.data_config import TruncationSide

Tokenize = Callable[[Example], UntruncatedExample]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The maximum number of tokens, and the side on which texts of users and tools are cut."""

    max_length: int
    side: TruncationSide


@dataclass(frozen=True, kw_only=True)
class TruncatedExample:
    """An example that fits its limit, and what it lost.

    `num_removed_turns` counts the messages of removed exchanges. `has_cut_texts`: a text of a user
    or a tool lost tokens. `has_cut_completion`: the completion lost its end.
    """

    tokens: EncodedExample
    num_removed_turns: int = 0
    has_cut_texts: bool = False
    has_cut_completion: bool = False


def truncate(
    example: Example,
    whole: UntruncatedExample,
    tokenize: Tokenize,
    limit: Limit,
    *,
    cut_completion: bool,
) -> TruncatedExample | None:
    """Return an example within `limit`; None if even one character of each text is too much.

    Args:
        whole: the tokens of `example`.
        tokenize: returns the tokens of the example with fewer turns.
        cut_completion: instead of None, return an example whose completion lost its end: all texts
            and the completion are cut, the longest first.
    """
    if whole.num_tokens <= limit.max_length:
        return TruncatedExample(tokens=whole.encoded())
    num_removed_turns, rest = _remove_oldest_exchanges(example, whole, tokenize, limit.max_length)
    kept = _cut_texts(rest, rest.prompt_texts, limit)
    if kept is None and cut_completion and rest.completion_ids:
        completion = range(len(rest.prompt_ids), rest.num_tokens)
        kept = _cut_texts(rest, [*rest.prompt_texts, completion], limit)
    if kept is None:
        return None
    num_kept_of_prompt = bisect_left(kept, len(rest.prompt_ids))
    return TruncatedExample(
        tokens=_select(rest, kept, whole),
        num_removed_turns=num_removed_turns,
        has_cut_texts=num_kept_of_prompt < len(rest.prompt_ids),
        has_cut_completion=len(kept) - num_kept_of_prompt < len(rest.completion_ids),
    )


def truncate_for_scoring(
    example: Example, whole: UntruncatedExample, tokenize: Tokenize, limit: Limit
) -> EncodedExample:
    """Return an example within `limit`, cut as in training.

    Every example must have a score. So an example that training drops loses the end of its
    completion or, if that is not enough, tokens after the first one of its prompt.
    """
    truncated = truncate(example, whole, tokenize, limit, cut_completion=True)
    if truncated is not None:
        return truncated.tokens
    num_prompt_tokens = max(1, limit.max_length - len(whole.completion_ids))
    start = len(whole.prompt_ids) - num_prompt_tokens
    kept = list(range(start, start + limit.max_length))
    if num_prompt_tokens > 1:
        kept[0] = 0
    return _select(whole, kept, whole)


def _select(
    rest: UntruncatedExample, kept: Sequence[int], whole: UntruncatedExample
) -> EncodedExample:
    return replace(rest.select(kept), num_truncated_tokens=whole.num_tokens - len(kept))


def tokens_of_texts(
    whole: str, texts: Iterable[tuple[int, int]], offsets: Sequence[tuple[int, int]]
) -> Iterator[range]:
    """Yield the tokens of each text that may be cut.

    A token that also contains characters of the template belongs to the template. The exception is
    the space before a text, which tokenizers join with the first word.

    Args:
        whole: the prompt.
        texts: first and last character of each text in the prompt.
        offsets: first and last character of each token.
    """
    for first, last in texts:
        start = bisect_left(offsets, first, key=itemgetter(0))
        if whole[first - 1 : first] == " " and start and offsets[start - 1][0] == first - 1:
            start -= offsets[start - 1][1] > first
        stop = bisect_right(offsets, last, key=itemgetter(1))
        if start < stop:
            yield range(start, stop)


def _remove_oldest_exchanges(
    example: Example, whole: UntruncatedExample, tokenize: Tokenize, max_length: int
) -> tuple[int, UntruncatedExample]:
    """Remove as few exchanges as necessary, and never the last.

    Return the number of removed messages, and the tokens of the other messages.
    """
    shorter = _shorter_chats(example)
    if not shorter:
        return 0, whole
    # Bisection, because each step renders a chat.
    fewest = bisect_left(
        range(len(shorter) - 1), True, key=lambda n: tokenize(shorter[n]).num_tokens <= max_length
    )
    rest = tokenize(shorter[fewest])
    if rest.num_tokens == whole.num_tokens:  # The template does not show earlier turns.
        return 0, whole
    return len(example.messages) - len(shorter[fewest].messages), rest


def _shorter_chats(example: Example) -> list[Example]:
    """Return the example without its oldest exchange, without its two oldest exchanges, etc."""
    roles = [message.role for message in example.messages]
    starts = [
        index
        for index, role in enumerate(roles)
        if role == "user" and "user" not in roles[max(0, index - 1) : index]
    ]
    return [
        replace(
            example,
            messages=(
                *(message for message in example.messages[:start] if message.role == "system"),
                *example.messages[start:],
            ),
        )
        for start in starts[1:]
    ]


def _cut_texts(
    example: UntruncatedExample, texts: Sequence[range], limit: Limit
) -> list[int] | None:
    """Return the indices of the tokens that remain; None if a text cannot keep a character."""
    num_other_tokens = example.num_tokens - sum(map(len, texts))
    if num_other_tokens + len(texts) > limit.max_length:
        return None
    lengths = _cut_longest_first([len(text) for text in texts], limit.max_length - num_other_tokens)
    removed: set[int] = set()
    for text, length in zip(texts, lengths, strict=True):
        side = limit.side if text.start < len(example.prompt_ids) else "right"
        lost = _removed_tokens(text, length, side, example.prompt_offsets)
        if len(lost) == len(text):
            return None
        removed.update(lost)
    return [index for index in range(example.num_tokens) if index not in removed]


def _cut_longest_first(lengths: Sequence[int], total: int) -> list[int]:
    """Return lengths of at most `total` in sum; the longest lose most, the shortest nothing."""
    shorter = list(lengths)
    for num_done, index in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):
        shorter[index] = min(lengths[index], total // (len(lengths) - num_done))
        total -= shorter[index]
    return shorter


def _removed_tokens(
    text: range, length: int, side: TruncationSide, offsets: Sequence[tuple[int, int]]
) -> range:
    """Return the tokens of `text` without its last or first `length`; whole characters remain."""
    if length == len(text):
        return range(0)
    if side == "left":
        end = text.stop - length
        while end < text.stop and _continues_character(end, offsets):
            end += 1
        return range(text.start, end)
    start = text.start + length
    while start > text.start and _continues_character(start, offsets):
        start -= 1
    return range(start, text.stop)


def _continues_character(index: int, offsets: Sequence[tuple[int, int]]) -> bool:
    """Return whether a token of the prompt begins with a later byte of a character."""
    return 0 < index < len(offsets) and offsets[index][0] < offsets[index - 1][1]
