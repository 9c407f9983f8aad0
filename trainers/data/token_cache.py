"""Tokenised examples kept on disk: made once, then mapped by all trials and ranks."""

import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import tokenizers
import transformers
from transformers import PreTrainedTokenizerBase

from trainers.config import DataConfig
from trainers.data.examples import Example
from trainers.data.roles import TOKENS_VERSION, Template
from trainers.data.tokenized import DamagedFileError, EncodedExamples
from trainers.foundation.cache_dirs import cache_dir
from trainers.foundation.errors import InputError, Problem

log = logging.getLogger(__name__)

# Part of the key: raise it whenever the files are written otherwise than before.
FORMAT_VERSION = 1

# Files kept, by when they were last used: as many as one works on at a time, of tens of MB each.
MAX_FILES = 20

_ABANDONED_S = 24 * 3600


def token_key(examples: Sequence[Example], template: Template, config: DataConfig) -> str:
    """The SHA-256 over all that the tokens of `examples` depend on, in hexadecimal."""
    settings = {
        "format": FORMAT_VERSION,
        "tokens": TOKENS_VERSION,
        "template": template.source if template.source is not None else template.name,
        "is_chat": template.name == "chat",
        "max_length": config.max_length,
        "completion_turns": config.completion_turns,
        "too_long": config.too_long,
        "tokenizer": _tokenizer_content(template.tokenizer),
        "versions": [transformers.__version__, tokenizers.__version__],
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for example in examples:
        messages = [(message.role, message.content) for message in example.messages]
        content = (example.id, messages, example.instruction, example.input)
        digest.update(b"\n" + json.dumps(content).encode())
    return digest.hexdigest()


def _tokenizer_content(tokenizer: PreTrainedTokenizerBase) -> list[object]:
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    # Left over from the tokenizer's last call; ours neither pad nor truncate.
    del content["padding"], content["truncation"]
    return [content, tokenizer.special_tokens_map, tokenizer.split_special_tokens]


def cached(
    key: str, make: Callable[[], EncodedExamples], *, is_first: bool = True
) -> EncodedExamples:
    """The examples under `key`, from the cache or made and put there.

    Several processes may do so at once: each writes a file of its own and renames it. A damaged
    file is made again. Where the user's cache folder cannot be written, the examples stay in
    memory, which one process of a run, with `is_first`, logs.

    Raises:
        InputError: the folder in PLW_CACHE_DIR cannot be written.
    """
    path = cache_dir() / "tokens" / f"{key}.arrow"
    found = _read(path, is_first)
    if found is not None:
        return found
    made = make()
    temporary = path.with_name(f".{key}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made.write(temporary)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _refuse_or_log(path, error, is_first)
        return made
    _drop_old_files(path.parent)
    # The mapped file instead of this process's copy, unless something has already removed it.
    return _read(path, is_first) or made


def _read(path: Path, is_first: bool) -> EncodedExamples | None:
    try:
        examples = EncodedExamples.read(path)
    except DamagedFileError as error:
        if is_first:
            log.warning("%s is damaged and is made again: %s", path, error)
        return None
    except OSError:  # Not there; or it says why once it is to be written.
        return None
    with suppress(OSError):  # A folder that others fill may be read-only here.
        os.utime(path)  # When it was last used.
    return examples


def _refuse_or_log(path: Path, error: OSError, is_first: bool) -> None:
    if os.environ.get("PLW_CACHE_DIR"):
        raise InputError(
            Problem(
                message=f"the tokens cannot be written: {error.strerror or error}",
                where=str(path.parent),
                fix="set PLW_CACHE_DIR to a folder that you may write to",
            )
        ) from None
    if is_first:
        log.warning(
            "tokens are not kept for the next run: %s cannot be written: %s",
            path.parent,
            error.strerror or error,
        )


def _drop_old_files(folder: Path) -> None:
    """Keep the `MAX_FILES` that were used last, and no file of a writer that was killed."""
    now = time.time()
    # Others may remove the same files, and not every file system lets one.
    with suppress(OSError):
        by_age = sorted(folder.glob("*.arrow"), key=lambda path: -path.stat().st_mtime)
        abandoned = [
            path for path in folder.glob(".*.tmp") if now - path.stat().st_mtime > _ABANDONED_S
        ]
        for path in [*by_age[MAX_FILES:], *abandoned]:
            path.unlink(missing_ok=True)
