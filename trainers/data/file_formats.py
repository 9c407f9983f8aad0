"""Read the records of one file: JSON Lines, JSON, CSV, TSV or Parquet; lazily except for JSON."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow
import pyarrow.parquet

from trainers.data.record_fields import Row, is_meaningful
from trainers.data.records import ACCEPTED_FORMS
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.jsonl import JsonlRow, json_error_message, load_json, parse_lines

# By file suffix, with Arrow's names.
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
# The first bytes of a file.
_MAGIC_NUMBERS = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".zst": b"\x28\xb5\x2f\xfd"}
_PARQUET_BATCH = 1000  # records
_CELL_FIX = (
    "put a cell that contains quotes, separators or line ends in quotes, and double the quotes"
    ' inside: "say ""hi"""'
)

csv.field_size_limit(sys.maxsize)  # The default rejects texts of more than 128 KiB.


def is_data_file(path: Path) -> bool:
    """Return whether the file's name has the suffix of a supported format."""
    return _reader_of(path) is not None


def read_rows(path: Path, name: str) -> Iterator[Row | Problem]:
    """Yield the records of a file of a supported format, and the problems of its syntax.

    Args:
        name: the file's name in the ids of the records.
    """
    reader = _reader_of(path)
    assert reader is not None, path
    try:
        yield from reader(path, name)
    except InputError as error:
        yield from error.problems
    except OSError as error:
        is_compressed = path.suffix.lower() in _COMPRESSIONS
        fix = "copy it again: it is incomplete or has another format" if is_compressed else None
        message = f"cannot be read: {error.strerror or error}"
        yield Problem(message=message, where=str(path), fix=fix)


def _reader_of(path: Path) -> Callable[[Path, str], Iterator[Row | Problem]] | None:
    suffix, compression = path.suffix.lower(), ""
    if suffix in _COMPRESSIONS:
        suffix, compression = Path(path.stem).suffix.lower(), suffix
    # Parquet compresses its columns itself.
    return None if compression and suffix == ".parquet" else _READERS.get(suffix)


def _open(path: Path) -> IO[bytes]:
    compression = _COMPRESSIONS.get(path.suffix.lower())
    if compression is None:
        return path.open("rb")
    stream = pyarrow.CompressedInputStream(path.open("rb"), compression)
    return io.BufferedReader(stream, 1 << 16)


def _check_compression(path: Path) -> None:
    """Check that the file's name has the suffix of its compression.

    Raises:
        InputError: the file is compressed, and its name does not say so.
    """
    with path.open("rb") as stream:
        start = stream.read(4)
    found = next((s for s, magic in _MAGIC_NUMBERS.items() if start.startswith(magic)), None)
    if found is not None and path.suffix.lower() not in _COMPRESSIONS:
        fix = f"rename it to {path.name}{found}"
        raise InputError(Problem(message="the file is compressed", where=str(path), fix=fix))


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their line ends; a byte order mark is removed.

    Raises:
        InputError: a line is not UTF-8.
    """
    _check_compression(path)
    with _open(path) as stream:
        # Text streams also end lines at a lone carriage return, and their errors have no line.
        for number, line in enumerate(stream, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    Problem(
                        message=f"must be UTF-8, got the byte 0x{line[error.start]:02x}",
                        where=f"{path}:{number}",
                        fix="save the file as UTF-8",
                    )
                ) from None


def _read_jsonl(path: Path, name: str) -> Iterator[Row | Problem]:
    fix = "write one object per line, or rename a file with one list to .json"
    is_first = True
    for row in parse_lines(path, _lines(path), fix=fix):
        # One value over several lines is not valid in its first line alone; one line may be a list.
        if is_first and (isinstance(row, Problem) or isinstance(row.content, list)):
            problem = _one_value_problem(path)
            if problem is not None:
                yield problem
                return
        is_first = False
        if isinstance(row, JsonlRow):
            yield Row(f"{name}:{row.number}", row.where, row.content)
        else:
            yield row


def _one_value_problem(path: Path) -> Problem | None:
    """Return the problem of a .jsonl file that is one list or object; None for other files."""
    first = next((line for line in _lines(path) if line.strip()), "").strip()
    if first != "{" and not first.startswith("["):
        return None  # A bad record: the rest of the file, which may be large, need not be read.
    try:
        content = load_json("".join(_lines(path)))
    except ValueError:
        return None
    stem, _, ending = path.name.lower().rpartition(".jsonl")
    kind, fix = "list", f"rename it to {path.name[: len(stem)]}.json{ending}"
    if isinstance(content, dict):
        kind = "object"
        if len([value for value in content.values() if isinstance(value, list)]) != 1:
            fix = "write one object per line"
    message = f"the file is one JSON {kind}, not one record per line"
    return Problem(message=message, where=str(path), fix=fix)


def _read_json(path: Path, name: str) -> Iterator[Row | Problem]:
    text = "".join(_lines(path))
    try:
        content = load_json(text) if text.strip() else []
    except ValueError as error:
        line, fix = "", None
        if isinstance(error, json.JSONDecodeError):
            line, fix = f":{error.lineno}", "if it has one record per line, rename it to .jsonl"
        yield Problem(message=json_error_message(error), where=f"{path}{line}", fix=fix)
        return
    if isinstance(content, dict):
        others = {name: one for name, one in content.items() if not isinstance(one, list)}
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else None
        if content is not None:
            yield from _unused_beside_records(others, path)
    if not isinstance(content, list):
        message = "must be a list of records, or an object with one list"
        yield Problem(message=message, where=str(path), fix=ACCEPTED_FORMS)
        return
    yield from index_rows(name, str(path), content)


def _unused_beside_records(fields: dict[str, Any], path: Path) -> Iterator[Problem]:
    """Yield the problem of each field that appears to apply to all records of a file."""
    for name, value in fields.items():
        if is_meaningful(name) and value not in (None, "", {}):
            message = f"{name} is outside the list of records and would be ignored"
            fix = "write it into the records, or remove it"
            yield Problem(message=message, where=str(path), fix=fix)


def _read_csv(path: Path, name: str) -> Iterator[Row | Problem]:
    yield from _read_table(path, name, ",")


def _read_tsv(path: Path, name: str) -> Iterator[Row | Problem]:
    yield from _read_table(path, name, "\t")


def _read_table(path: Path, name: str, delimiter: str) -> Iterator[Row | Problem]:
    """Yield the records of a file with a header; a quoted cell can contain line ends."""
    reader = csv.reader(_lines(path), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    number = 1  # of the record's first line
    try:
        for cells in reader:
            where, first, number = f"{path}:{number}", number, reader.line_num + 1
            if not cells:  # a blank line
                continue
            if header is None:
                header = cells
                if not all(header) or len(set(header)) < len(header):
                    message = f"the header must have different names, got {', '.join(header)}"
                    yield Problem(message=message, where=where, fix="edit the header")
                    return
            elif len(cells) == len(header):
                content = dict(zip(header, cells, strict=True))
                yield Row(f"{name}:{first}", where, content, is_text=True)
            else:
                message = f"the header has {len(header)} columns, but the record has {len(cells)}"
                yield Problem(message=message, where=where, fix=_CELL_FIX)
    except csv.Error as error:
        message = f"not valid: {error}"
        yield Problem(message=message, where=f"{path}:{number}", fix=_CELL_FIX)


def _read_parquet(path: Path, name: str) -> Iterator[Row | Problem]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            records = (
                record
                for batch in file.iter_batches(batch_size=_PARQUET_BATCH)
                for record in batch.to_pylist()
            )
            yield from index_rows(name, str(path), records, is_columnar=True)
    except pyarrow.ArrowInvalid as error:
        yield Problem(message=f"not a Parquet file: {first_line(error)}", where=str(path))


def index_rows(
    name: str, path: str, records: Iterable[Any], *, is_columnar: bool = False
) -> Iterator[Row]:
    """Yield records that have an index instead of a line number."""
    for index, record in enumerate(records):
        yield Row(f"{name}[{index}]", f"{path}[{index}]", record, is_columnar)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


_READERS: dict[str, Callable[[Path, str], Iterator[Row | Problem]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
