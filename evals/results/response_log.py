"""What a model has answered so far, kept line by line while a benchmark is taken.

A benchmark that was killed goes on behind its last answer; a line that the kill cut is dropped.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainers.foundation.files import write_text


class Answers:
    """Answers by request, in a file whose first line says what they depend on.

    Args:
        path: None keeps them in memory alone.
        identity: ready for JSON; a file with another one is begun anew.
    """

    def __init__(self, path: Path | None, identity: dict[str, Any]) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        if path is None:
            return
        head = json.dumps({"identity": identity}, ensure_ascii=False)
        lines = _whole_lines(path)
        if lines and lines[0] == head:
            self._known = dict(json.loads(line) for line in lines[1:])
        else:
            lines = [head]
        write_text(path, "".join(f"{line}\n" for line in lines))

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Any:
        """The answer to a request; None if there is none yet."""
        return self._known.get(key)

    def add(self, key: str, answer: Any) -> None:
        """Keep an answer, which is ready for JSON."""
        self._known[key] = answer
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, answer], ensure_ascii=False) + "\n")

    def discard(self) -> None:
        """Remove the file: what it held is kept elsewhere."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def request_keys(kind: str, requests: Sequence[Sequence[Any]]) -> list[str]:
    """A key for each request; those that are alike are told apart by their turn."""
    turns: Counter[str] = Counter()
    keys = []
    for request in requests:
        content = json.dumps([kind, *request], ensure_ascii=False, sort_keys=True, default=str)
        key = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        turns[key] += 1
        keys.append(f"{key}-{turns[key]}")
    return keys


def _whole_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return []
    # What stands behind the last line end was cut short.
    return lines[:-1]
