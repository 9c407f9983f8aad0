"""API keys: hashed on disk, shown once, compared in constant time."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from filelock import FileLock
from pydantic import Field

from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import read_json, write_json
from trainers.foundation.records import Record

PREFIX = "sk-plw-"
_KEY_BYTES = 32
_ID_BYTES = 6


class KeyRecord(Record):
    """A key: its owner id, a name for people, and the SHA-256 of its 256 random bits."""

    id: str
    name: str
    sha256: str


class _KeyFile(Record):
    keys: list[KeyRecord] = Field(default_factory=list)


class Keys:
    """The keys in a server's data folder; other processes may add and remove keys."""

    def __init__(self, data: Path) -> None:
        self._path = data / "keys.json"
        self._cached: tuple[tuple[int, int] | None, list[KeyRecord]] = (None, [])

    def all(self) -> list[KeyRecord]:
        """Return the keys; the file is read again when it changed."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return []
        version = (stat.st_mtime_ns, stat.st_ino)
        if self._cached[0] != version:
            self._cached = (version, _KeyFile.model_validate(read_json(self._path)).keys)
        return self._cached[1]

    def owner(self, key: str) -> str | None:
        """Return the id of the owner of a key; None for an unknown key."""
        digest = _digest(key)
        found = None
        for record in self.all():  # No early end: the time must not depend on the key.
            if hmac.compare_digest(record.sha256, digest):
                found = record.id
        return found

    def add(self, name: str) -> str:
        """Add a key and return it; it cannot be shown again.

        Raises:
            InputError: the name is taken.
        """
        key = PREFIX + secrets.token_urlsafe(_KEY_BYTES)
        with self._locked():
            keys = self.all()
            if any(record.name == name for record in keys):
                message = f"there is a key named {name}"
                raise InputError(
                    Problem(message=message, where="NAME", fix="remove it first, or use another")
                )
            record = KeyRecord(id=secrets.token_hex(_ID_BYTES), name=name, sha256=_digest(key))
            self._write([*keys, record])
        return key

    def remove(self, name: str) -> None:
        """Remove a key; what it owns stays on disk.

        Raises:
            InputError: there is no such key.
        """
        with self._locked():
            keys = self.all()
            left = [record for record in keys if record.name != name]
            if len(left) == len(keys):
                names = ", ".join(record.name for record in keys) or "there is none"
                raise InputError(
                    Problem(message=f"no key named {name}", where="NAME", fix=f"keys: {names}")
                )
            self._write(left)

    def _locked(self) -> FileLock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self._path.with_name("keys.lock"))

    def _write(self, keys: list[KeyRecord]) -> None:
        before = os.umask(0o077)
        try:
            write_json(self._path, _KeyFile(keys=keys).model_dump(mode="json"))
        finally:
            os.umask(before)


def _digest(key: str) -> str:
    # A key has 256 random bits, so a slow hash would add nothing.
    return hashlib.sha256(key.encode()).hexdigest()
