"""Write the files of an export."""

from pathlib import Path

from orchestrator.export.base import Export, Framework
from orchestrator.foundation.safe_write import check_overwrite, write_output
from trainers.foundation.errors import InputError

_DEFAULT_NAMES: dict[Framework, str] = {
    "trl": "train_trl.py",
    "axolotl": "axolotl.yaml",
    "ms-swift": "swift.yaml",
}


def default_out(framework: Framework) -> Path:
    """Return the default path of the main file, in the working directory."""
    return Path(_DEFAULT_NAMES[framework])


def write_export(export: Export, out: Path, *, overwrite: bool) -> list[Path]:
    """Write all files to the folder of `out`, the main file last.

    Return their paths, the main file first.

    Raises:
        InputError: one of the files exists and `overwrite` is false; no file is written.
    """
    paths = [out.with_name(name) for name in export.files]
    problems = []
    for path in paths:
        try:
            check_overwrite(path, overwrite=overwrite)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    for path, text in reversed(list(zip(paths, export.files.values(), strict=True))):
        write_output(path, text, overwrite=True)
    return paths
