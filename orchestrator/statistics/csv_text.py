"""Read a delimited text file as records with line numbers.

Fields are separated by commas, semicolons or tabs; the separator is detected. Quoted fields may
contain separators and line breaks.
"""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trainers.foundation.errors import InputError, Problem

SEPARATORS = (",", ";", "\t")
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")

# First line of the record, counted from 1, and its fields.
Record = tuple[int, list[str]]


@dataclass(frozen=True, kw_only=True)
class CsvText:
    """A decoded file with its detected `separator`; `header` is the first record, at `line`."""

    path: Path
    separator: str
    header: tuple[str, ...]
    line: int
    text: str

    def records(self) -> Iterator[Record]:
        """Yield the records after the header, without blank ones.

        Raises:
            InputError: a quoted field is not closed, or is followed by more text.
        """
        records = _records(self.text, self.separator, self.path)
        next(records)
        return records


def read_csv_text(path: Path, is_known: Callable[[str], bool]) -> CsvText:
    """Read the file at `path`, in UTF-8 (or in UTF-16 with a byte order mark).

    Args:
        is_known: returns whether a header field names a column. The separator with the most known
            columns is used; if no column is known, the comma.

    Raises:
        InputError: the file cannot be read, is empty, or its header has an unclosed quote.
    """
    text = _decoded(path)
    found: dict[str, Record] = {}
    problems: list[Problem] = []
    for each in SEPARATORS:
        try:
            found[each] = _header(text, each, path)
        except InputError as error:
            problems += error.problems
    if not found:
        raise InputError(problems[0])
    separator = max(found, key=lambda each: sum(map(is_known, found[each][1])))
    line, header = found[separator]
    return CsvText(path=path, separator=separator, header=tuple(header), line=line, text=text)


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
        return content.decode("utf-16" if content.startswith(_UTF_16_MARKS) else "utf-8-sig")
    except OSError as error:
        fault, fix = error.strerror or str(error), "check the path of the CSV file"
    except UnicodeDecodeError as error:
        fault, fix = f"byte {error.start} is not {error.encoding.upper()}", "save it in UTF-8"
    raise InputError(Problem(message=f"cannot be read: {fault}", where=str(path), fix=fix))


def _header(text: str, separator: str, path: Path) -> Record:
    for line, fields in _records(text, separator, path):
        return line, [field.strip() for field in fields]
    fix = "write a header line and one row per score"
    raise InputError(Problem(message="file is empty", where=str(path), fix=fix))


def _records(text: str, separator: str, path: Path) -> Iterator[Record]:
    # Strict: otherwise an unclosed quote silently swallows the rest of the file.
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    line = 1
    try:
        for fields in reader:
            # A cleared row of a spreadsheet contains only separators.
            if any(field and not field.isspace() for field in fields):
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            Problem(
                message=f"cannot be split into fields: {error}",
                where=f"{path}:{line}",
                fix='close the quotes on this line; write a quote inside a field as ""',
            )
        ) from None
