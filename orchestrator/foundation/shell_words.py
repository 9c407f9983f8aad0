"""Write paths into the commands that messages suggest."""

import shlex
from pathlib import Path


def shell_path(path: str | Path) -> str:
    """Return `path` as one argument of a shell command, which is not read as an option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
