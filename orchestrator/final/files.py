"""Where the files of an export go."""

from pathlib import Path

from orchestrator.final.frameworks import Export, Framework
from orchestrator.foundation.safe_write import check_new, write_new
from trainers.foundation.errors import InputError

_DEFAULT_NAMES: dict[Framework, str] = {
    "trl": "train_trl.py",
    "axolotl": "axolotl.yaml",
    "ms-swift": "swift.yaml",
}


def default_out(framework: Framework) -> Path:
    """The file to start from, in the working directory."""
    return Path(_DEFAULT_NAMES[framework])


def write_export(export: Export, out: Path, *, is_forced: bool) -> list[Path]:
    """Write all files beside `out`, the one to start from last; returns their paths, it first.

    Raises:
        InputError: any of them is there and `is_forced` is false; then none is written.
    """
    paths = [out.with_name(name) for name in export.files]
    problems = []
    for path in paths:
        try:
            check_new(path, is_forced=is_forced)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    for path, text in reversed(list(zip(paths, export.files.values(), strict=True))):
        write_new(path, text, is_forced=True)
    return paths
