"""Package a sweep for a cluster: the code, the spec, and the small models and data it uses.

Ray copies the package to every node. On the head, `unpack_spec` copies the spec's files to the
cluster's storage. Their path contains a digest of their content, so later sweeps and a new head
find them at the same path.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from orchestrator.cluster.spec_files import (
    PACKAGED_PREFIX,
    SpecFile,
    find_spec_files,
    map_paths,
)
from orchestrator.foundation.packages import code_digest, package_files
from trainers.data.data_files import pattern_folder
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import sha256_file

SPEC_FILE = "sweep.yaml"
INPUTS = "inputs"
# Prefix of a job's argument that names a sweep or its folder on the cluster.
SWEEP_PREFIX = "plw-sweep:"
# Ray's head accepts uploads of up to 100 MiB.
MAX_BYTES = 90 * 2**20


@dataclass(frozen=True, kw_only=True)
class JobPackage:
    """A folder that Ray copies to every node, with its size and the digests of code and spec.

    `files` are the local files that the spec names; the spec's digest includes their content.
    """

    folder: Path
    code: str
    spec: str
    num_bytes: int
    files: tuple[SpecFile, ...]

    @property
    def metadata(self) -> dict[str, str]:
        """The digests, for the metadata of a job."""
        return {"plw_code": self.code, "plw_spec": self.spec}

    def is_that_of(self, metadata: Mapping[str, str]) -> bool:
        """Return whether a job with this metadata runs this package; unknown digests may match."""
        return all(metadata.get(key, value) == value for key, value in self.metadata.items())


def build_package(content: dict[str, Any], into: Path) -> JobPackage:
    """Copy the code, the spec and the files that it names into the empty folder `into`.

    Args:
        content: content of the spec's file, with overrides applied.

    Raises:
        InputError: the files exceed the upload limit, or `find_spec_files` rejects them.
    """
    found = find_spec_files(content)
    # Check before computing the digest of a model that is too large.
    sizes = {str(one.source): one.num_bytes for one in found.values()}
    if sum(sizes.values()) > MAX_BYTES:
        raise InputError(_too_large(sum(sizes.values()), sizes))
    names = {key: _packaged_name(one) for key, one in found.items()}
    for name, path in package_files():
        _copy(path, into / name)
    for key, one in found.items():
        _copy_files(one, into / INPUTS / names[key])
    num_bytes = sum(path.stat().st_size for path in into.rglob("*") if path.is_file())
    if num_bytes > MAX_BYTES:
        raise InputError(_too_large(num_bytes, sizes))
    spec = map_paths(
        content,
        lambda value, setting: (
            f"{PACKAGED_PREFIX}{names[setting, value]}" if (setting, value) in names else value
        ),
    )
    with (into / SPEC_FILE).open("w", encoding="utf-8") as file:
        YAML(typ="rt").dump(spec, file)
    files = tuple(found.values())
    return JobPackage(
        folder=into,
        code=code_digest(),
        spec=sha256_file(into / SPEC_FILE)[:12],
        num_bytes=num_bytes,
        files=files,
    )


def unpack_spec(content: Any, here: Path, storage: Path) -> Any:
    """Return the spec's content with packaged names replaced by paths on the storage.

    Args:
        here: the folder that Ray unpacked.
        storage: a folder that all nodes share; missing files are copied to it.
    """

    def unpack(value: str, _: str) -> str:
        if not value.startswith(PACKAGED_PREFIX):
            return value
        name = value.removeprefix(PACKAGED_PREFIX)
        target = storage / INPUTS / name
        if not target.exists():
            # Copy, then rename: a head that dies here must not leave a partial model.
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = sha256(str(here).encode()).hexdigest()[:8]
            temporary = target.parent / f".{target.name}.{digest}"
            _copy(here / INPUTS / name, temporary)
            if not target.exists():
                temporary.rename(target)
        return str(target)

    return map_paths(content, unpack)


def _root(file: SpecFile) -> Path:
    """Return the path whose name the package keeps: a pattern becomes a folder."""
    return file.source if file.source.exists() else pattern_folder(file.source)


def _packaged_name(file: SpecFile) -> str:
    """Return `<digest of the content>/<name>`."""
    root, digest = _root(file), sha256()
    for path in file.files:
        digest.update(f"{path.relative_to(root.parent)}\n{sha256_file(path)}\n".encode())
    return f"{digest.hexdigest()[:12]}/{root.name}"


def _copy_files(file: SpecFile, target: Path) -> None:
    root = _root(file)
    for path in file.files:
        _copy(path, target if path == root else target / path.relative_to(root))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)


def _too_large(num_bytes: int, sizes: Mapping[str, int]) -> Problem:
    largest = max(sizes, key=lambda name: sizes[name])
    return Problem(
        message=f"the local files of the spec take {num_bytes / 2**20:.0f} MiB, of which "
        f"{sizes[largest] / 2**20:.0f} MiB are {largest}; the limit is {MAX_BYTES / 2**20:.0f} MiB",
        fix="copy it to the cluster's storage and give its path there, or use a hub name",
    )
