"""Group the tokens of an example into runs of one role and weight, and make them visible."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from transformers.convert_slow_tokenizer import bytes_to_unicode

from orchestrator.inspection.token_view import Cut, ExampleView, TokenView

# Characters that would break the line or be invisible.
_VISIBLE = str.maketrans({"\n": "⏎", "\r": "␍", "\t": "⇥"})
_BYTE_OF_CHARACTER = {character: byte for byte, character in bytes_to_unicode().items()}
_BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")


@dataclass(frozen=True)
class Run:
    """Consecutive tokens of one role and weight, the first one at position `start`."""

    role: str
    weight: float
    start: int
    tokens: Sequence[TokenView]


def token_runs(view: ExampleView) -> Iterator[Run | Cut]:
    """Yield the runs of an example in order, and its cuts between them."""
    tokens = view.tokens
    cut_at = {cut.position: cut for cut in view.cuts}
    weights = [token.weight for token in tokens]
    # The first token is not predicted. It is shown in one run with the tokens after it.
    if len(tokens) > 1 and tokens[0].role == tokens[1].role:
        weights[0] = weights[1]
    parts = [sum(cut <= position for cut in cut_at) for position in range(len(tokens))]
    start = 0
    for (_, role, weight), group in groupby(
        range(len(tokens)), key=lambda i: (parts[i], tokens[i].role, weights[i])
    ):
        run = [tokens[i] for i in group]
        if start in cut_at:
            yield cut_at[start]
        yield Run(role, weight, start, run)
        start += len(run)
    if start in cut_at:
        yield cut_at[start]


def visible_token(token: TokenView) -> str:
    """Return a token on one line; a part of a character as its bytes, such as \\xe2."""
    return visible(token.text) if token.text else _bytes_of(token.piece)


def visible(text: str) -> str:
    """Return `text` on one line: symbols for line breaks and tabs, \\xNN for control characters."""
    return "".join(
        character if character.isprintable() else f"\\x{ord(character):02x}"
        for character in text.translate(_VISIBLE)
    )


def _bytes_of(piece: str) -> str:
    """Return the bytes of a token of a byte-level tokenizer or one with byte fallback."""
    fallback = _BYTE_PIECE.fullmatch(piece)
    if fallback:
        return f"\\x{fallback.group(1).lower()}"
    if all(character in _BYTE_OF_CHARACTER for character in piece):
        return "".join(f"\\x{_BYTE_OF_CHARACTER[character]:02x}" for character in piece)
    return visible(piece)
