"""Files in an object store such as S3: whole ones, put and fetched, with retries.

An object store knows no appends, renames or locks. What is written here is whole or not there, and
a marker that is put last says that what belongs to it is there.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow
from pyarrow import fs

from trainers.foundation.errors import TrainingError

# Backs off up to 20 s between tries: a store may be away for about a minute.
TRIES = 8
CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 30.0


class StorageError(TrainingError):
    """The store failed again and again."""


class ObjectStore:
    """The objects below `uri`, s3://bucket/prefix, by names such as `trials/a/train.json`.

    Credentials and region are found as the `aws` command finds them; AWS_ENDPOINT_URL names another
    store that speaks S3.

    Raises:
        StorageError: from every method, once the store has failed `tries` times.
    """

    def __init__(self, uri: str, *, tries: int = TRIES) -> None:
        self.uri, self._tries = uri.rstrip("/"), tries
        self._files, self._root = _connect(self.uri, tries)

    def at(self, name: str) -> "ObjectStore":
        """The objects below `name`."""
        return ObjectStore(f"{self.uri}/{name}", tries=self._tries)

    def put(self, path: Path, name: str) -> None:
        """Store the file at `path` under `name`."""
        try:
            with path.open("rb") as source, self._writer(name) as target:
                shutil.copyfileobj(source, target, 2**23)
        except OSError as error:
            raise self._failed("take", name, error) from error

    def put_text(self, text: str, name: str) -> None:
        """Store a text under `name`."""
        try:
            with self._writer(name) as target:
                target.write(text.encode())
        except OSError as error:
            raise self._failed("take", name, error) from error

    def fetch(self, name: str, path: Path) -> None:
        """Put the object `name` at `path`, in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with (
                self._files.open_input_stream(self._path(name)) as source,
                temporary.open("wb") as target,
            ):
                shutil.copyfileobj(source, target, 2**23)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise self._failed("give", name, error) from error

    def sizes(self, name: str = "") -> dict[str, int]:
        """The sizes of all objects below `name`, by their names below it."""
        folder = self._path(name)
        selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
        try:
            found = self._files.get_file_info(selector)
        except OSError as error:
            raise self._failed("list", name, error) from error
        return {one.path.removeprefix(f"{folder}/"): one.size for one in found if one.is_file}

    def remove(self, name: str) -> None:
        """Remove the object `name`, or all objects below it; nothing if there are none."""
        path = self._path(name)
        try:
            kind = self._files.get_file_info(path).type
            if kind == fs.FileType.File:
                self._files.delete_file(path)
            elif kind == fs.FileType.Directory:
                self._files.delete_dir(path)
        except OSError as error:
            raise self._failed("remove", name, error) from error

    def put_folder(self, folder: Path, name: str, paths: Iterator[Path]) -> None:
        """Store those files of `folder`, in their order."""
        for path in paths:
            self.put(path, f"{name}/{path.relative_to(folder)}")

    def fetch_folder(self, name: str, folder: Path, *, only: frozenset[str] | None = None) -> None:
        """Put all objects below `name` into `folder`, or those called as in `only`.

        What is there with the same size is left as it is.
        """
        for one, size in sorted(self.sizes(name).items()):
            path = folder / one
            is_wanted = only is None or path.name in only
            if is_wanted and not (path.is_file() and path.stat().st_size == size):
                self.fetch(f"{name}/{one}", path)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    def _writer(self, name: str) -> pyarrow.NativeFile:
        if self.uri.startswith("file:"):
            Path(self._path(name)).parent.mkdir(parents=True, exist_ok=True)
        return self._files.open_output_stream(self._path(name))

    def _failed(self, verb: str, name: str, error: OSError) -> StorageError:
        reason = str(error).strip().splitlines()[0]
        return StorageError(
            f"the storage {self.uri} did not {verb} {name or 'its objects'} in {self._tries} tries"
            f": {reason}"
        )


def _connect(uri: str, tries: int) -> tuple[fs.FileSystem, str]:
    parts = urlsplit(uri)
    if parts.scheme != "s3":
        files, root = fs.FileSystem.from_uri(uri)
        return files, root
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    files = fs.S3FileSystem(
        endpoint_override=endpoint,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=tries),
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=SILENCE_TIMEOUT_S,
        # Small files in one request.
        allow_delayed_open=True,
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
    )
    return files, f"{parts.netloc}{parts.path}"
