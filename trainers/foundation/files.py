"""Read files, and write them atomically."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from trainers.foundation.errors import InputError, Problem


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically: to a temporary file, which is then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Write `content` to `path` atomically, as indented JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the content of the JSON file at `path`."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def apply_folder_mode(folder: Path) -> None:
    """Give the safetensors files in `folder` the folder's read and write permissions.

    safetensors 0.8 writes each file with mode 600 (safetensors issue 782).
    """
    for file in folder.glob("*.safetensors"):
        file.chmod(folder.stat().st_mode & 0o666)


def check_output_folder(folder: Path, *, where: str) -> None:
    """Check that files can be written to `folder`, which need not exist. Nothing is created.

    Args:
        where: the command-line option that set the folder.

    Raises:
        InputError: `folder` is a file, is below a file, or is not writable.
    """
    nearest = folder.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        fault = f"must be a folder, got {folder}: {nearest} is a file"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        fault = f"must be a writable folder, got {folder}"
    else:
        return
    raise InputError(Problem(message=fault, where=where, fix="use another folder"))
