"""Store uploaded files, and check their content with the reader that training uses."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from orchestrator.serve.config import ServeConfig
from orchestrator.serve.errors import ApiError, invalid_value, no_such_file
from orchestrator.serve.paths import DataFolder
from orchestrator.serve.records import FileRecord, new_id
from orchestrator.serve.store import Store
from trainers.data.readers import iter_examples
from trainers.data.reading_counts import ReadingCounts
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError, Problem

PURPOSE = "fine-tune"
RESULTS = "fine-tune-results"
_MAX_NAME = 200
_MIB = 2**20
_PART = ".part.jsonl"


class Files:
    """The files of all owners."""

    def __init__(self, store: Store, folder: DataFolder, config: ServeConfig) -> None:
        self._store, self._folder, self._config = store, folder, config
        folder.files.mkdir(parents=True, exist_ok=True)
        for leftover in folder.files.glob(f"*{_PART}"):  # of uploads that a kill interrupted
            leftover.unlink()

    def add(self, owner: str, name: str, purpose: str, source: BinaryIO) -> FileRecord:
        """Store an upload and return its record, which lists the faults of its content.

        Raises:
            ApiError: the purpose, the name or the size is wrong; nothing is stored then.
        """
        if purpose != PURPOSE:
            raise invalid_value(
                "purpose", f"'purpose' must be '{PURPOSE}', got {purpose[:40]!r}.", "invalid_value"
            )
        filename = _file_name(name)
        extension = Path(filename).suffix.lower()
        if extension != ".jsonl":
            raise invalid_value(
                "file",
                f"Invalid file format: '{extension or filename}' is not supported. Supported"
                " formats: ['jsonl'].",
                "invalid_file_format",
            )
        record = FileRecord(
            id=new_id("file"),
            owner=owner,
            filename=filename,
            purpose=purpose,
            bytes=0,
            created_at=int(time.time()),
        )
        path = self._folder.files / f"{record.id}{_PART}"
        try:
            _copy(source, path, self._config.limits.file_mib)
            size = path.stat().st_size
            if size == 0:
                raise invalid_value("file", "The file is empty.", "empty_file")
            num_examples, faults = self._check(path)
            record = record.model_copy(
                update={"bytes": size, "num_examples": num_examples, "faults": faults}
            )
            path.replace(self._folder.file(record.id))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self._store.add_file(record)
        return record

    def _check(self, path: Path) -> tuple[int, list[str]]:
        """Return the number of valid examples, and every fault with its line."""
        models = self._config.models.values()
        configs = [entry.train_config(str(path)).data for entry in models]
        data = DataConfig(
            path=str(path),
            ignore=tuple(sorted({name for one in configs for name in one.ignore})),
            drop=tuple(sorted({reason for one in configs for reason in one.drop})),
        )
        num_examples = 0
        faults = []
        try:
            for _ in iter_examples(data, ReadingCounts()):
                num_examples += 1
        except InputError as error:
            faults = [_fault(problem, path) for problem in error.problems]
        least = self._config.limits.min_examples
        if not faults and num_examples < least:
            faults = [f"the file has {num_examples} examples, but at least {least} are needed"]
        return num_examples, faults

    def add_results(self, record: FileRecord, content: bytes) -> None:
        """Store the result file of a job; a repetition changes nothing."""
        path = self._folder.file(record.id)
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(content)
        temporary.replace(path)
        self._store.add_file(record)

    def get(self, file_id: str, owner: str) -> FileRecord:
        """Return a file of `owner`.

        Raises:
            ApiError: there is none.
        """
        record = self._store.file(file_id, owner)
        if record is None:
            raise no_such_file(file_id)
        return record

    def path(self, record: FileRecord) -> Path:
        return self._folder.file(record.id)

    def delete(self, file_id: str, owner: str) -> None:
        """Delete a file of `owner`; jobs keep the data that they use."""
        record = self.get(file_id, owner)
        self._store.delete_file(record.id)
        self.path(record).unlink(missing_ok=True)

    def for_job(self, file_id: str, owner: str, param: str) -> FileRecord:
        """Return the file of a request that creates a job.

        Raises:
            ApiError: there is no such file, or its content has faults.
        """
        record = self._store.file(file_id, owner)
        if record is None:
            message = f"invalid {param}: {file_id} does not exist"
            raise invalid_value(param, message, f"invalid_{param}")
        if record.purpose != PURPOSE:
            message = f"invalid {param}: {file_id} has the purpose {record.purpose}"
            raise invalid_value(param, message, f"invalid_{param}")
        if record.faults:
            message = f"invalid {param}: {file_id}: {'; '.join(record.faults)}"
            raise invalid_value(param, message, f"invalid_{param}")
        return record


def _copy(source: BinaryIO, path: Path, file_mib: int) -> None:
    """Copy an upload to disk.

    Raises:
        ApiError: it is too large.
    """
    with path.open("xb") as target:
        for chunk in _chunks(source):
            target.write(chunk)
            if target.tell() > file_mib * _MIB:
                raise too_large(file_mib)
        target.flush()
        os.fsync(target.fileno())


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    while chunk := source.read(_MIB):
        yield chunk


def too_large(file_mib: int) -> ApiError:
    """Return the error for a file above the limit."""
    return ApiError(
        413,
        f"The file is larger than the limit of {file_mib} MiB.",
        param="file",
        code="file_too_large",
    )


def _file_name(name: str) -> str:
    """Return the last part of an uploaded file's name, without control characters."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(c for c in last if c.isprintable())[-_MAX_NAME:] or "upload"


def _fault(problem: Problem, path: Path) -> str:
    """Return a problem of the file's content, with its line and without its path."""
    where = (problem.where or "").removeprefix(str(path)).lstrip(":")
    place = f"line {where}: " if where.isdigit() else ""
    return f"{place}{problem.message}".replace(str(path), "the file")
