"""Choose the local files that a submitted spec may send, and reject the others.

A spec can come from anyone. Only settings that are paths can send files, and each kind of setting
only files of its kind. Files that look like credentials are never sent.
"""

import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from typing import Any

from evals.judge_config import OPPONENT_NAMES
from trainers.data.data_files import find_data_files
from trainers.data.file_formats import is_data_file
from trainers.data.template_files import TEMPLATE_NAMES
from trainers.foundation.errors import InputError, Problem

PACKAGED_PREFIX = "plw-packaged:"
TEMPLATE_SUFFIXES = (".jinja", ".jinja2", ".j2")
# Paths on the cluster: results, earlier sweeps and caches. Their files are not sent.
CLUSTER_PATHS = frozenset({"output_dir", "storage", "search.warm_start", "evals.judge.cache_dir"})
_SECRET_FOLDERS = frozenset(
    {
        *(".ssh", ".aws", ".azure", ".gnupg", ".kube", ".docker", ".ray", ".password-store"),
        *(".pki", ".git", ".config", ".mozilla"),
    }
)
_SYSTEM_FOLDERS = frozenset({"/etc", "/proc", "/sys", "/dev", "/boot", "/run"})
_SECRET_NAMES = (
    *(".*", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*.pem", "*.key", "*.p12", "*.pfx"),
    *("*.kdbx", "*.keystore", "*.jks", "*credential*", "*secret*", "*password*", "*.tfstate"),
    *("token", "*_token", "stored_tokens", "service_account*", "service-account*"),
)
_SECRET_CONTENT = re.compile(
    rb'-----BEGIN [A-Z ]*PRIVATE KEY-----|"type":\s*"service_account"|aws_secret_access_key'
)
_HEAD_BYTES = 4096
# A small input of a spec has fewer files.
MAX_FILES = 10_000


@dataclass(frozen=True)
class SpecFile:
    """A local path in a spec with its files; `setting` is the dotted path of the setting."""

    setting: str
    source: Path
    files: tuple[Path, ...]

    @property
    def num_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)


def map_paths(content: Any, replace: Callable[[str, str], str], setting: str = "") -> Any:
    """Return `content` with `replace(value, setting)` in place of each text at a path setting."""
    if isinstance(content, Mapping):
        return {
            # Keys of search.space and of points are dotted paths of settings.
            key: map_paths(one, replace, key if "." in str(key) else f"{setting}.{key}".strip("."))
            for key, one in content.items()
        }
    if isinstance(content, list):
        return [map_paths(one, replace, setting) for one in content]
    is_path = setting in _KINDS or setting in CLUSTER_PATHS
    return replace(content, setting) if isinstance(content, str) and is_path else content


def find_spec_files(content: Mapping[str, Any]) -> dict[tuple[str, str], SpecFile]:
    """Return the files to send by the setting and the path in the spec.

    Raises:
        InputError: a path has a part `..`, its files are of another kind, look like credentials, or
            do not exist; lists all of them.
    """
    found: dict[tuple[str, str], SpecFile] = {}
    problems: list[Problem] = []

    def look(value: str, setting: str) -> str:
        try:
            _check_text(value, setting)
            source = None if setting in CLUSTER_PATHS else _local_source(value, setting)
            if source is None:
                return value
            files = tuple(islice(_KINDS[setting](source, value), MAX_FILES + 1))
            if len(files) > MAX_FILES:
                raise InputError(_problem(setting, f"{value} has more than {MAX_FILES} files"))
            for path in files:
                _check_not_secret(path, setting)
            found[setting, value] = SpecFile(setting, source, files)
        except InputError as error:
            problems.extend(error.problems)
        return value

    map_paths(content, look)
    problems += [
        _problem("", f"{text[:100]} begins with {PACKAGED_PREFIX}, which only plw submit writes")
        for text in _texts(content)
        if text.startswith(PACKAGED_PREFIX)
    ]
    if problems:
        raise InputError(problems)
    return found


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder that are not hidden, sorted within each folder."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(parent, name) for name in sorted(names) if not name.startswith("."))
        # Unlike Path.is_file, this is false for files in folders that cannot be read.
        yield from (path for path in paths if os.path.isfile(path))


def _local_source(value: str, setting: str) -> Path | None:
    """Return the local path of a setting; None for a name of a hub or a path on the cluster.

    Raises:
        InputError: a relative data file does not exist here, so it is on no node either.
    """
    if value in _NAMES.get(setting, ()):
        return None
    source = Path(value).expanduser().absolute()
    try:
        if source.exists() or (setting in _DATA and glob.glob(str(source), recursive=True)):
            return source
    except OSError:
        return None
    # Names on a hub have neither the suffix of a data file nor wildcards.
    is_file = is_data_file(Path(value)) or glob.has_magic(value)
    if setting not in _NAMES and not value.startswith(("/", "~")) and is_file:
        raise InputError(
            Problem(
                message=f"{value}: no such file on this machine, and a path on the cluster must be "
                "absolute",
                where=setting,
                fix="correct the path, or give an absolute path that exists on every node",
            )
        )
    return None


def _check_text(value: str, setting: str) -> None:
    if ".." in Path(value).parts:
        raise InputError(
            Problem(
                message=f"a submitted spec must not have a path with '..', got {value}",
                where=setting,
                fix="give a path below the current folder, or an absolute path",
            )
        )


def _check_not_secret(path: Path, setting: str) -> None:
    # The target of a link decides: model.json can be a link to a key.
    for one in {path, path.resolve()}:
        is_of_system = any(str(one).startswith(f"{folder}/") for folder in _SYSTEM_FOLDERS)
        is_named = any(fnmatch(one.name.lower(), pattern) for pattern in _SECRET_NAMES)
        if is_of_system or is_named or _SECRET_FOLDERS & set(one.parts):
            raise InputError(_secret(path, setting, "its name or folder"))
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(_problem(setting, f"{path}: {error.strerror}")) from None
    if _SECRET_CONTENT.search(head):
        raise InputError(_secret(path, setting, "its content"))


def _secret(path: Path, setting: str, reason: str) -> Problem:
    return Problem(
        message=f"{path} may hold credentials, by {reason}; it was not sent",
        where=setting,
        fix="remove it from the spec; if it holds none, copy it to another name or folder",
    )


def _problem(setting: str, message: str) -> Problem:
    return Problem(message=message, where=setting or None, fix="give a path of this setting's kind")


def _model(source: Path, value: str) -> Iterator[Path]:
    if not (source / "config.json").is_file():
        raise InputError(_problem("model.path", f"{value} is not a model: it has no config.json"))
    yield from _files_below(source)


def _data(source: Path, value: str) -> Iterator[Path]:
    yield from (file.path for file in find_data_files(str(source)))


def _template(source: Path, value: str) -> Iterator[Path]:
    if not source.is_file() or source.suffix not in TEMPLATE_SUFFIXES:
        names = ", ".join(TEMPLATE_SUFFIXES)
        message = f"{value} is not a template: a submitted one must be a file that ends in {names}"
        raise InputError(_problem("data.template", message))
    yield source


def _json(source: Path, value: str) -> Iterator[Path]:
    if source.is_dir():
        yield from _model(source, value)
    elif source.is_file() and source.suffix in (".json", ".jsonl"):
        yield source
    else:
        message = f"{value} is neither a .json or .jsonl file nor a model"
        raise InputError(_problem("evals", message))


def _folder(source: Path, value: str) -> Iterator[Path]:
    if not source.is_dir():
        raise InputError(_problem("evals", f"{value} is not a folder"))
    yield from _files_below(source)


_DATA = ("data.path", "data.sources.path")
# Values that are names, not paths, even if there is a file with this name.
_NAMES: dict[str, tuple[str, ...]] = {
    "model.path": (),
    "data.template": TEMPLATE_NAMES,
    "evals.pandalm_prompts.opponent": OPPONENT_NAMES,
}
_KINDS: dict[str, Callable[[Path, str], Iterator[Path]]] = {
    "model.path": _model,
    **dict.fromkeys(_DATA, _data),
    "data.template": _template,
    "evals.include_path": _folder,
    "evals.data_root": _folder,
    "evals.benchmarks.path": _json,
    "evals.alpaca_eval.reference": _json,
    "evals.pandalm_prompts.prompts": _json,
    "evals.pandalm_prompts.opponent": _json,
    "evals.judged.path": _json,
    "evals.judged.reference": _json,
    "evals.judge.local_model": _model,
}


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value)
    elif isinstance(content, str):
        yield content
