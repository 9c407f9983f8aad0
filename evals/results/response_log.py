"""A log of a model's responses, written line by line while an evaluation runs.

An evaluation that was killed continues after its last logged response. An incomplete last line is
dropped.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainers.foundation.files import write_text


class ResponseLog:
    """Responses by request key, in a file whose first line is the identity of the evaluation.

    Args:
        path: None keeps the responses in memory only.
        identity: JSON-serialisable; a file with another identity is overwritten.
    """

    def __init__(self, path: Path | None, identity: dict[str, Any]) -> None:
        self._path = path
        self._responses: dict[str, Any] = {}
        if path is None:
            return
        head = json.dumps({"identity": identity}, ensure_ascii=False)
        lines = _complete_lines(path)
        if lines and lines[0] == head:
            self._responses = dict(json.loads(line) for line in lines[1:])
        else:
            lines = [head]
        write_text(path, "".join(f"{line}\n" for line in lines))

    def __len__(self) -> int:
        return len(self._responses)

    def get(self, key: str) -> Any:
        """Return the response to a request; None if it is not logged."""
        return self._responses.get(key)

    def add(self, key: str, response: Any) -> None:
        """Log a response, which must be JSON-serialisable."""
        self._responses[key] = response
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, response], ensure_ascii=False) + "\n")

    def discard(self) -> None:
        """Remove the file after the result of the evaluation has been saved."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def request_keys(kind: str, requests: Sequence[Sequence[Any]]) -> list[str]:
    """Return a key for each request; equal requests are numbered."""
    counts: Counter[str] = Counter()
    keys = []
    for request in requests:
        content = json.dumps([kind, *request], ensure_ascii=False, sort_keys=True, default=str)
        key = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        counts[key] += 1
        keys.append(f"{key}-{counts[key]}")
    return keys


def _complete_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return []
    # Text after the last line end is incomplete.
    return lines[:-1]
