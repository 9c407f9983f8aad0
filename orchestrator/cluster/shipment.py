"""What a sweep on a cluster needs from this machine: our code, the spec, small models and data.

Ray hands the folder to every node. Files that the spec names are put beside the sweep's results on
the cluster's storage, under a digest of their content, so a later sweep and a new head find them
at the same place; `unpack_spec` does that there.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from orchestrator.foundation.packages import code_digest, package_files
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import sha256_of

SPEC_FILE = "sweep.yaml"
INPUTS = "inputs"
SHIPPED = "plw-shipped:"
# Ray's head takes uploads of up to 100 MiB.
MAX_BYTES = 90 * 2**20
# No name on a hub ends like this.
DATA_SUFFIXES = (".jsonl", ".json", ".parquet")
# They name what is on the cluster: where results go, and earlier sweeps there.
_OF_CLUSTER = ("output_dir", "storage", "learn_from", "uri")


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """A folder for Ray to hand to every node, and the digest of the code in it."""

    folder: Path
    code: str
    num_bytes: int


def pack(content: dict[str, Any], into: Path) -> Shipment:
    """Put the code, the spec and the files that it names into the empty folder `into`.

    Args:
        content: of the spec's file, with overrides applied.

    Raises:
        InputError: it is more than the cluster takes.
    """
    for name, path in package_files():
        _copy(path, into / name)
    sizes: dict[str, int] = {}
    spec = _with_shipped(content, into, sizes)
    num_bytes = sum(path.stat().st_size for path in into.rglob("*") if path.is_file())
    num_bytes += sum(sizes.values())
    if num_bytes > MAX_BYTES:
        raise InputError(_too_large(num_bytes, sizes))
    for source in sizes:
        target = into / INPUTS / _shipped_name(Path(source))
        _copy(Path(source), target)
    with (into / SPEC_FILE).open("w", encoding="utf-8") as file:
        YAML(typ="rt").dump(spec, file)
    return Shipment(folder=into, code=code_digest(), num_bytes=num_bytes)


def unpack_spec(content: Any, here: Path, storage: Path) -> Any:
    """The spec's content with each shipped file's name replaced by its path on the storage.

    Args:
        here: the folder that Ray unpacked.
        storage: a folder that all nodes see; what is not there yet is copied.
    """
    if isinstance(content, Mapping):
        return {key: unpack_spec(value, here, storage) for key, value in content.items()}
    if isinstance(content, list):
        return [unpack_spec(value, here, storage) for value in content]
    if not isinstance(content, str) or not content.startswith(SHIPPED):
        return content
    name = content.removeprefix(SHIPPED)
    target = storage / INPUTS / name
    if not target.exists():
        # In one step: a head that dies now must not leave half of a model there.
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{target.name}.{sha256(str(here).encode()).hexdigest()[:8]}"
        _copy(here / INPUTS / name, temporary)
        if not target.exists():
            temporary.rename(target)
    return str(target)


def _with_shipped(value: Any, into: Path, sizes: dict[str, int], key: str = "") -> Any:
    """`value` with files of this machine replaced by their names in the shipment."""
    if key in _OF_CLUSTER:
        return value
    if isinstance(value, Mapping):
        return {k: _with_shipped(v, into, sizes, str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_shipped(one, into, sizes, key) for one in value]
    if not isinstance(value, str):
        return value
    if not _is_file_of_ours(value, key):
        _check_elsewhere(value, key)
        return value
    source = Path(value).expanduser().absolute()
    sizes[str(source)] = sum(path.stat().st_size for path in _files(source))
    if sum(sizes.values()) > MAX_BYTES:
        # Nobody waits for the digest of a model that is too large anyway.
        raise InputError(_too_large(sum(sizes.values()), sizes))
    return f"{SHIPPED}{_shipped_name(source)}"


def _is_file_of_ours(value: str, key: str) -> bool:
    """Whether a spec's value names a file or folder here, and is not just a word that one has."""
    looks_like_path = "/" in value or "." in value or key.endswith(("path", "paths", "file"))
    if not looks_like_path or "\n" in value:
        return False
    try:
        return Path(value).expanduser().exists()
    except (OSError, RuntimeError):
        return False


def _check_elsewhere(value: str, key: str) -> None:
    """Refuse a file that is not here and cannot be there, where no path but a whole one leads.

    Raises:
        InputError: it is such a file.
    """
    if key == "path" and not value.startswith(("/", "~")) and value.endswith(DATA_SUFFIXES):
        raise InputError(
            Problem(
                message=f"{value}: no such file here, and on the cluster only whole paths lead "
                "anywhere",
                fix="correct the path, or give one that begins with / and is there on every node",
            )
        )


def _shipped_name(source: Path) -> str:
    """`<digest of the content>/<its own name>`."""
    digest = sha256()
    for path in _files(source):
        digest.update(f"{path.relative_to(source.parent)}\n{sha256_of(path)}\n".encode())
    return f"{digest.hexdigest()[:12]}/{source.name}"


def _files(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
        return
    yield from sorted(path for path in source.rglob("*") if path.is_file())


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)


def _too_large(num_bytes: int, sizes: Mapping[str, int]) -> Problem:
    largest = max(sizes, key=lambda name: sizes[name])
    return Problem(
        message=f"the files that the spec names here have {num_bytes / 2**20:.0f} MiB, of which "
        f"{sizes[largest] / 2**20:.0f} MiB are {largest}; at most {MAX_BYTES / 2**20:.0f} MiB are "
        "sent along",
        fix="copy it to the cluster's storage once and name its path there, or take it from a hub",
    )
