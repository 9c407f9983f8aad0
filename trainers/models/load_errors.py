"""Explain why transformers cannot load a model, with a fix for this model."""

import json
import os
from pathlib import Path

from safetensors import SafetensorError

from trainers.foundation.errors import InputError, Problem
from trainers.foundation.suggestions import did_you_mean

# First bytes of the pointer that replaces a file until Git LFS downloads it.
_LFS_POINTER = b"version https://git-lfs"
_MAX_MESSAGE = 200  # characters
# transformers' message for a hub name without a connection and without cached files.
_NO_CONNECTION = "We couldn't connect to"
# Fixes by phrases in transformers' messages.
_FIXES = {
    "does not support an attention implementation": "set model.attention to eager",
    "FlashAttention2": "install flash-attn, or set model.attention to sdpa",
    "quantized model": "use the version without quantization: quantized models cannot be trained",
    "for this kind of AutoModel": "use a decoder-only model",
}


def cannot_load(path: str, error: Exception, *, name: str = "model.path") -> InputError:
    """Return the error for a model that transformers cannot load.

    Args:
        path: the model's folder or hub name.
        error: the error that transformers or safetensors raised.
        name: the setting with the path, or another name of the model.
    """
    folder = Path(path).expanduser()
    message, fix = (folder.is_dir() and _folder_fault(folder)) or _error_fault(error, folder)
    return InputError(
        Problem(message=f"{name} {path} cannot be loaded: {message[:_MAX_MESSAGE]}", fix=fix)
    )


def _folder_fault(folder: Path) -> tuple[str, str] | None:
    """Return a problem with the folder's files and its fix, or None."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with file.open("rb") as content:
                start = content.read(len(_LFS_POINTER))
        except PermissionError:
            return f"{file.name} must be readable", f"let its owner run `chmod a+r {file}`"
        if start == _LFS_POINTER:
            return (
                f"{file.name} is a Git LFS pointer, not the weights",
                "run `git lfs pull` in that folder",
            )
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        missing = sorted(shard for shard in shards if not (folder / shard).exists())
        if missing:
            return f"{', '.join(missing)} is missing", "copy the missing files into the folder"
    return None


def _error_fault(error: Exception, folder: Path) -> tuple[str, str]:
    """Return the error as one line, and its fix."""
    text = str(error).strip() or type(error).__name__
    line = text.splitlines()[0].split(". ")[0]
    for phrase, fix in _FIXES.items():
        if phrase in text:
            return line, fix
    if isinstance(error, SafetensorError):
        return f"a safetensors file is damaged or incomplete ({line})", "copy the files again"
    if folder.is_dir():
        return line, "correct the folder's files, or use another folder"
    is_offline = os.environ.get("HF_HUB_OFFLINE") == "1"
    fix = "use an existing folder" + ("" if is_offline else ", or a hub name that can be reached")
    if _NO_CONNECTION in line:
        hub = "HF_HUB_OFFLINE is 1" if is_offline else "the hub cannot be reached"
        return f"there is no folder {folder} here, and {hub}", _near_folder(folder) or fix
    return line, fix


def _near_folder(folder: Path) -> str | None:
    """Return `did you mean NAME?` for a model beside `folder`, or None."""
    models = [str(file.parent) for file in folder.parent.glob("*/config.json")]
    return did_you_mean(str(folder), models)
