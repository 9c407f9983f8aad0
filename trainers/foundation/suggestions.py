"""Suggest the known name that a misspelt name is most similar to."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return `did you mean NAME?` for the nearest known name; None if none is similar.

    Args:
        cutoff: least similarity, from 0 to 1 (`difflib.SequenceMatcher.ratio`).
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean {near[0]}?" if near else None
