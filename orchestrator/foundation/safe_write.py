"""Write output files, and overwrite existing ones only on request."""

from pathlib import Path

from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import write_text


def check_overwrite(path: Path, *, overwrite: bool) -> None:
    """Check that `path` does not exist, or is a file that may be overwritten.

    Raises:
        InputError: `path` is a folder, or the file exists and `overwrite` is false.
    """
    if path.is_dir():
        message, fix = "is a folder", "give the name of a file in it"
    elif path.exists() and not overwrite:
        message, fix = "file exists", "use --force to overwrite"
    else:
        return
    raise InputError(Problem(message=message, where=str(path), fix=fix))


def write_output(path: Path, text: str, *, overwrite: bool) -> None:
    """Write `text` to `path` atomically.

    Raises:
        InputError: the file exists and `overwrite` is false, or it cannot be written.
    """
    check_overwrite(path, overwrite=overwrite)
    try:
        write_text(path, text)
    except OSError as error:
        message = f"cannot be written: {error.strerror or error}"
        raise InputError(
            Problem(message=message, where=str(path), fix="give another path")
        ) from None
