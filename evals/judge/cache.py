"""Replies of judges on disk, so that no question is asked and paid for twice.

    cache_dir/judge/3f/3f9a....json     one reply

One small file each, written in one step: workers on several machines may share the folder, a
person may read it, and nothing in it is run when it is loaded.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from evals.judge.annotators import Messages
from trainers.foundation.cache_dirs import cache_dir
from trainers.foundation.files import check_output_folder, write_json

# Raised whenever the same request would be put to the judge in another way.
CACHE_VERSION = 1


class Reply(BaseModel):
    """What a judge replied to one question in the end.

    `text` is None where no whole reply came (`error` then says why). Tokens are None where the
    endpoint did not count them, and are those of the last request alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str | None
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    num_asked: int = 1
    error: str | None = None


def question_key(judge: str, settings: dict[str, Any], messages: Messages) -> str:
    """What a reply is kept under: the judge, all that shapes its reply, and the words of the
    question, which hold template, instruction, both outputs and their order.
    """
    question = {
        "version": CACHE_VERSION,
        "judge": judge,
        "settings": settings,
        "messages": messages,
    }
    content = json.dumps(question, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


class ReplyCache:
    """Replies by the key of their question.

    Raises:
        InputError: nothing can be kept in `folder`, which is better known before asking.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = Path(folder).expanduser() if folder else cache_dir() / "judge"
        check_output_folder(self.folder, where="evals.judge.cache_dir")

    def get(self, key: str) -> Reply | None:
        """The reply that is kept; None if none is, or its file cannot be read."""
        try:
            return Reply.model_validate_json(self._path(key).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            return None

    def put(self, key: str, reply: Reply) -> None:
        """Keep `reply`."""
        write_json(self._path(key), reply.model_dump(mode="json"))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
