"""Write files so that a reader never sees half of one."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from trainers.foundation.errors import InputError, Problem


def write_text(path: Path, text: str) -> None:
    """Put `text` at `path` in one step: a temporary name first, then a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Put `content` at `path` as indented JSON, in one step."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of the JSON file at `path`."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_output_folder(folder: Path, *, where: str) -> None:
    """Return if files can be written into `folder`, which need not exist yet; creates nothing.

    Raises:
        InputError: it is a file, below one, or not writable; `where` names the option that gave it.
    """
    nearest = folder.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        fault = f"must be a folder, got {folder}, but {nearest} is a file"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        fault = f"must be a folder that can be written to, got {folder}"
    else:
        return
    raise InputError(Problem(message=fault, where=where, fix="give another folder"))
