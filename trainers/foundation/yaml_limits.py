"""Limits for YAML files that anyone may have written: their size, and what aliases expand to."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainers.foundation.errors import InputError, Problem

# ruamel.yaml parses 20 to 60 KB per second. A spec has a few KB.
MAX_BYTES = 2**16
MAX_VALUES = 100_000
# ruamel.yaml takes seconds to fail on deeper nesting.
MAX_DEPTH = 50
_NESTED_LISTS = re.compile(rf"(?:[-?:] +){{{MAX_DEPTH}}}")


def read_limited(path: Path) -> str:
    """Return the text of a file of at most MAX_BYTES; never read more, even of /dev/zero.

    Raises:
        InputError: the file is larger.
        OSError: the file cannot be read.
        UnicodeDecodeError: it is not UTF-8 text.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InputError(
            Problem(
                message=f"the file is larger than {MAX_BYTES // 1024} KiB",
                where=str(path),
                fix="give a spec or config; data belongs into files of its own",
            )
        )
    return content.decode("utf-8")


def check_depth(text: str, path: Path) -> None:
    """Check that at most MAX_DEPTH brackets are open at once; those in strings count as well.

    Raises:
        InputError: the text is nested more deeply.
    """
    depth = most = 0
    for bracket in re.findall(r"[][{}]", text):
        depth += 1 if bracket in "[{" else -1
        most = max(most, depth)
    if most > MAX_DEPTH or _NESTED_LISTS.search(text):
        raise InputError(
            Problem(message="nested too deeply", where=str(path), fix="close the brackets")
        )


def check_expansion(content: Any, path: Path) -> None:
    """Check that `content` has at most MAX_VALUES values once every alias is expanded.

    Nine lines of aliases to lists of aliases can stand for 10^9 values.

    Raises:
        InputError: it has more, or a value contains itself.
    """
    sizes: dict[int, int] = {}
    problem = f"aliases (*name) expand to more than {MAX_VALUES:,} values"

    def count(value: Any) -> int:
        if not isinstance(value, Mapping | list):
            return 1
        known = sizes.get(id(value))
        if known == 0:
            raise _too_large(path, "an anchor (&name) contains an alias to itself")
        if known is not None:
            return known
        sizes[id(value)] = 0
        children = value.values() if isinstance(value, Mapping) else value
        total = 1
        for child in children:
            total += count(child)
            if total > MAX_VALUES:
                raise _too_large(path, problem)
        sizes[id(value)] = total
        return total

    count(content)


def _too_large(path: Path, message: str) -> InputError:
    return InputError(Problem(message=message, where=str(path), fix="write the values out"))
