"""Upload files to an object store such as S3, and download them, with retries.

An object store has no append, rename or lock. An object is either complete or absent. A marker
object is uploaded last; it shows that the objects it belongs to are complete.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow
from pyarrow import fs

from trainers.foundation.errors import TrainingError

# The backoff between attempts grows to 20 s, so an outage of about a minute is tolerated.
MAX_ATTEMPTS = 8
CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 30.0


class StorageError(TrainingError):
    """The object store failed in every attempt."""


class ObjectStore:
    """The objects below `uri` (s3://bucket/prefix), by names such as `trials/a/train.json`.

    Credentials and region come from the same sources as for the `aws` command. AWS_ENDPOINT_URL
    selects another S3-compatible store.

    Raises:
        StorageError: every method raises it after `tries` failed attempts.
    """

    def __init__(self, uri: str, *, tries: int = MAX_ATTEMPTS) -> None:
        self.uri, self._tries = uri.rstrip("/"), tries
        self._files, self._root = _connect(self.uri, tries)

    def subfolder(self, name: str) -> "ObjectStore":
        """Return a store for the objects below `name`."""
        return ObjectStore(f"{self.uri}/{name}", tries=self._tries)

    def upload(self, path: Path, name: str) -> None:
        """Upload the file at `path` as the object `name`."""
        try:
            with path.open("rb") as source, self._writer(name) as target:
                shutil.copyfileobj(source, target, 2**23)
        except OSError as error:
            raise self._failed("accept", name, error) from error

    def upload_text(self, text: str, name: str) -> None:
        """Upload `text` as the object `name`."""
        try:
            with self._writer(name) as target:
                target.write(text.encode())
        except OSError as error:
            raise self._failed("accept", name, error) from error

    def read_text(self, name: str) -> str | None:
        """Return the text of the object `name`; None if there is none."""
        try:
            with self._files.open_input_stream(self._path(name)) as source:
                return bytes(source.read()).decode()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed("return", name, error) from error

    def download(self, name: str, path: Path) -> None:
        """Download the object `name` to `path` atomically."""
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
            raise self._failed("return", name, error) from error

    def sizes(self, name: str = "") -> dict[str, int]:
        """Return the size in bytes of each object below `name`, by its name relative to `name`."""
        folder = self._path(name)
        selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
        try:
            found = self._files.get_file_info(selector)
        except OSError as error:
            raise self._failed("list", name, error) from error
        return {info.path.removeprefix(f"{folder}/"): info.size for info in found if info.is_file}

    def remove(self, name: str) -> None:
        """Remove the object `name` or all objects below it, if they exist."""
        path = self._path(name)
        try:
            kind = self._files.get_file_info(path).type
            if kind == fs.FileType.File:
                self._files.delete_file(path)
            elif kind == fs.FileType.Directory:
                self._files.delete_dir(path)
        except OSError as error:
            raise self._failed("remove", name, error) from error

    def upload_folder(self, folder: Path, name: str, paths: Iterator[Path]) -> None:
        """Upload the files `paths` of `folder`, in this order, to objects below `name`."""
        for path in paths:
            self.upload(path, f"{name}/{path.relative_to(folder)}")

    def download_folder(
        self, name: str, folder: Path, *, only: frozenset[str] | None = None
    ) -> None:
        """Download all objects below `name` into `folder`, or those with a file name in `only`.

        A local file of the same size is not downloaded again.
        """
        for key, size in sorted(self.sizes(name).items()):
            path = folder / key
            is_selected = only is None or path.name in only
            if is_selected and not (path.is_file() and path.stat().st_size == size):
                self.download(f"{name}/{key}", path)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    def _writer(self, name: str) -> pyarrow.NativeFile:
        if self.uri.startswith("file:"):
            Path(self._path(name)).parent.mkdir(parents=True, exist_ok=True)
        return self._files.open_output_stream(self._path(name))

    def _failed(self, verb: str, name: str, error: OSError) -> StorageError:
        reason = str(error).strip().splitlines()[0]
        return StorageError(
            f"the storage {self.uri} did not {verb} {name or 'its objects'} in {self._tries} "
            f"attempts: {reason}"
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
        request_timeout=REQUEST_TIMEOUT_S,
        # Small files are uploaded in a single request.
        allow_delayed_open=True,
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
    )
    return files, f"{parts.netloc}{parts.path}"
