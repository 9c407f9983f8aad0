"""Write a file that a person asked for, and never over another one unasked."""

from pathlib import Path

from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import write_text


def check_new(path: Path, *, is_forced: bool) -> None:
    """Return if `write_new` may write to `path`, as far as that shows before it is done.

    Raises:
        InputError: it is a folder, or there is such a file and `is_forced` is false.
    """
    if path.is_dir():
        fault, fix = "is a folder", "name a file in it"
    elif path.exists() and not is_forced:
        fault, fix = "there is such a file already", "give another name, or --force to replace it"
    else:
        return
    raise InputError(Problem(message=fault, where=str(path), fix=fix))


def write_new(path: Path, text: str, *, is_forced: bool) -> None:
    """Put `text` at `path` in one step.

    Raises:
        InputError: there is such a file and `is_forced` is false, or it cannot be written.
    """
    check_new(path, is_forced=is_forced)
    try:
        write_text(path, text)
    except OSError as error:
        fault = f"cannot be written: {error.strerror or error}"
        raise InputError(Problem(message=fault, where=str(path), fix="give another path")) from None
