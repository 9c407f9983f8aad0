"""Locate the project's three packages and hash their files.

The package names are common, so another distribution may have a package of the same name.
"""

import importlib.util
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from trainers.foundation.errors import InputError, Problem

PACKAGES = ("orchestrator", "trainers", "evals")


def check_packages() -> Path:
    """Return the folder that contains all three packages, without importing them.

    Raises:
        InputError: the packages come from different folders, because another package of the same
            name comes first on the import path.
    """
    folders: dict[str, Path | None] = {}
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        folders[name] = Path(spec.origin).parent.parent if spec and spec.origin else None
    if None not in folders.values() and len(set(folders.values())) == 1:
        root = folders["orchestrator"]
        assert root is not None
        return root
    found = ", ".join(f"{name} from {folder or 'no folder'}" for name, folder in folders.items())
    raise InputError(
        Problem(
            message=f"the three packages of plw-sweep must come from one folder, got {found}",
            fix="another package of the same name comes first on the import path: install "
            "plw-sweep in a separate environment, and start it outside of such a package's folder",
        )
    )


def package_files() -> Iterator[tuple[str, Path]]:
    """Yield (relative POSIX path, path) of each file of the three packages, in order."""
    root = check_packages()
    for name in sorted(PACKAGES):
        for path in sorted((root / name).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(root).as_posix(), path


def code_digest() -> str:
    """Return a digest of all files of the three packages, equal on nodes with the same code."""
    digest = sha256()
    for name, path in package_files():
        digest.update(f"{name}\n{path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
