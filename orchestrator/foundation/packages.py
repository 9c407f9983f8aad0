"""The project's three packages have common names: make sure that they are ours, and together."""

import importlib.util
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from trainers.foundation.errors import InputError, Problem

PACKAGES = ("orchestrator", "trainers", "evals")


def check_packages() -> Path:
    """The one folder that holds all three packages; imports none of them.

    Raises:
        InputError: they come from several folders, as they do where another distribution has a
            package of one of these names and stands first on the path.
    """
    folders: dict[str, Path | None] = {}
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        folders[name] = Path(spec.origin).parent.parent if spec and spec.origin else None
    if None not in folders.values() and len(set(folders.values())) == 1:
        home = folders["orchestrator"]
        assert home is not None
        return home
    found = ", ".join(f"{name} from {folder or 'nowhere'}" for name, folder in folders.items())
    raise InputError(
        Problem(
            message=f"the three packages of plw-sweep must come from one folder, not {found}",
            fix="another package of such a name is first on the path: use an environment of its "
            "own, and start outside of folders with these names",
        )
    )


def package_files() -> Iterator[tuple[str, Path]]:
    """Every file of the three packages by its name below their folder, in order."""
    home = check_packages()
    for name in sorted(PACKAGES):
        for path in sorted((home / name).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(home).as_posix(), path


def code_digest() -> str:
    """A digest of all files of the three packages: equal where the same code runs."""
    digest = sha256()
    for name, path in package_files():
        digest.update(f"{name}\n{path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
