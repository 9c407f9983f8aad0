"""On-disk cache of judge replies, so that no request is paid for twice.

    cache_dir/judge/3f/3f9a....json     one reply

Each reply is one small file, written atomically. Workers on several machines may share the folder.
The files are readable, and loading them executes no code.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from evals.judge.annotators import Messages
from trainers.foundation.cache_dirs import cache_dir
from trainers.foundation.files import check_output_folder, write_json

# Increase it when equal settings and messages are sent in a different form.
CACHE_VERSION = 1


class Reply(BaseModel):
    """The final reply to one request.

    `text` is None if no complete reply arrived; `error` then gives the reason. Token counts are
    those of the last attempt; None if the endpoint did not report them. `served_model` and
    `system_fingerprint` name the model that the endpoint says it used. `num_asked` counts replies,
    including those without a verdict.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str | None
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    served_model: str | None = None
    system_fingerprint: str | None = None
    num_asked: int = 1
    error: str | None = None


def request_key(judge: str, settings: dict[str, Any], messages: Messages) -> str:
    """Return the cache key: a hash of the judge, its settings and the messages.

    The messages contain the prompt template, the instruction and both outputs in their order.
    """
    request = {
        "version": CACHE_VERSION,
        "judge": judge,
        "settings": settings,
        "messages": messages,
    }
    content = json.dumps(request, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


class ReplyCache:
    """Replies by request key.

    Raises:
        InputError: `folder` is not writable; raised before any request is sent.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = Path(folder).expanduser() if folder else cache_dir() / "judge"
        check_output_folder(self.folder, where="evals.judge.cache_dir")

    def get(self, key: str) -> Reply | None:
        """Return the cached reply; None if there is none or it cannot be read."""
        try:
            return Reply.model_validate_json(self._path(key).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            return None

    def put(self, key: str, reply: Reply) -> None:
        """Store `reply` under `key`."""
        write_json(self._path(key), reply.model_dump(mode="json"))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
