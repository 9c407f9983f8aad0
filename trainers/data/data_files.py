"""Find the files that a data path names: a file, a folder or a pattern."""

import glob
import re
from dataclasses import dataclass
from pathlib import Path

from trainers.data.file_formats import is_data_file
from trainers.foundation.errors import InputError, Problem

_SUFFIXES = ".jsonl, .json, .csv or .tsv (also with .gz, .bz2 or .zst) or .parquet"
# Source: the keywords of `datasets.data_files`.
_SPLITS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "dev", "val"},
    "test": {"test", "testing", "eval", "evaluation"},
}
_RENAME = "rename or convert the file, or use the name of a hub data set"


@dataclass(frozen=True)
class DataFile:
    """A file of a data set.

    `name` is its path below the folder of the data set, the same on every machine.
    """

    path: Path
    name: str


def is_local(path: str) -> bool:
    """Return whether a data path names files of this machine, and not a hub or demo data set."""
    if path.startswith("demo:"):
        return False
    looks_like_file = path.startswith((".", "/", "~")) or is_data_file(Path(path))
    return looks_like_file or glob.has_magic(path) or Path(path).exists()


def find_data_files(path: str) -> list[DataFile]:
    """Return the files of a file path, a folder (recursively) or a pattern, sorted by path.

    Hidden files are left out, and in folders all files of other types.

    Raises:
        InputError: there is no such file, or a file has another type.
    """
    given = Path(path).expanduser()
    if given.is_dir():
        return _files_in(given, path)
    if not given.exists() and glob.has_magic(path):
        return _matching_files(given, path)
    if not given.exists():
        raise InputError(Problem(message="no such file", where=path, fix="correct data.path"))
    if not given.is_file() or not is_data_file(given):
        raise InputError(
            Problem(
                message=f"data.path must be a file that ends in {_SUFFIXES}",
                where=path,
                fix=_RENAME,
            )
        )
    return [DataFile(given, given.name)]


def _files_in(folder: Path, path: str) -> list[DataFile]:
    found = [
        DataFile(file, file.relative_to(folder).as_posix())
        for file in folder.rglob("*")
        if file.is_file() and is_data_file(file) and not _is_hidden(file.relative_to(folder))
    ]
    if not found:
        message = f"the folder must contain a file that ends in {_SUFFIXES}"
        raise InputError(Problem(message=message, where=path, fix="correct data.path"))
    if (folder / "dataset_info.json").exists() or (folder / "dataset_dict.json").exists():
        message = "the folder was written by save_to_disk of datasets, which plw does not read"
        fix = "write it as Parquet: load_from_disk(folder).to_parquet('data.parquet')"
        raise InputError(Problem(message=message, where=path, fix=fix))
    found.sort(key=lambda file: file.name)
    splits = {split: file.name for file in reversed(found) if (split := _split_of(file))}
    if len(splits) > 1:
        message = f"the folder has files of several splits: {', '.join(splits.values())}"
        fix = f"name those to train on, such as {path.rstrip('/')}/**/*train*"
        raise InputError(Problem(message=message, where=path, fix=fix))
    return found


def _split_of(file: DataFile) -> str | None:
    """Return the split that a file's name contains as a word, as in `datasets`."""
    words = set(re.split(r"[^a-z]+", file.name.lower()))
    return next((split for split, names in _SPLITS.items() if names & words), None)


def _matching_files(pattern: Path, path: str) -> list[DataFile]:
    matches = [Path(match) for match in glob.glob(str(pattern), recursive=True)]
    files = sorted(match for match in matches if match.is_file())
    if not files:
        raise InputError(
            Problem(message="no file matches the pattern", where=path, fix="correct data.path")
        )
    problems = [
        Problem(
            message=f"data.path must match only files that end in {_SUFFIXES}",
            where=str(file),
            fix="make the pattern narrower",
        )
        for file in files
        if not is_data_file(file)
    ]
    if problems:
        raise InputError(problems)
    folder = pattern_folder(pattern)
    return [DataFile(file, file.relative_to(folder).as_posix()) for file in files]


def pattern_folder(pattern: Path) -> Path:
    """Return the part of a pattern before its first component with a wildcard."""
    return next(part for part in pattern.parents if not glob.has_magic(str(part)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
