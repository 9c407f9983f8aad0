"""Suggest the known name or dotted path that a misspelt name is most similar to."""

import difflib
from collections import defaultdict
from collections.abc import Iterable

_MAX_PATHS = 3


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return `did you mean NAME?` for the nearest known name; None if none is similar.

    Args:
        cutoff: least similarity, from 0 to 1 (`difflib.SequenceMatcher.ratio`).
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean {near[0]}?" if near else None


def did_you_mean_path(name: str, paths: Iterable[str], *, cutoff: float) -> str | None:
    """Return `did you mean PATH?` for the dotted paths whose last part is nearest to `name`.

    Lists at most 3 paths with the same last part, the shortest first; None if none is similar.
    """
    by_last: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        by_last[path.rpartition(".")[2]].append(path)
    near = difflib.get_close_matches(name, by_last, n=1, cutoff=cutoff)
    if not near:
        return None
    found = sorted(by_last[near[0]], key=lambda path: path.count("."))
    return f"did you mean {' or '.join(found[:_MAX_PATHS])}?"
