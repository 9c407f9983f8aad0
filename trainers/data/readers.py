"""Read the examples of files, hub data sets and the demo data."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainers.data.columns import ColumnRenamer
from trainers.data.data_files import find_data_files, is_local
from trainers.data.examples import Example, pair
from trainers.data.file_formats import read_rows
from trainers.data.hub import read_hub
from trainers.data.reading_counts import ReadingCounts
from trainers.data.record_fields import Row
from trainers.data.records import ACCEPTED_FORMS, RecordParser
from trainers.data.token_records import TokenRecordParser, is_tokenised
from trainers.data_config import DataConfig, SourceConfig
from trainers.demo.data import python_docs
from trainers.foundation.counts import format_count
from trainers.foundation.errors import InputError, Problem

log = logging.getLogger(__name__)

_MAX_LISTED = 20  # problems
_MAX_PLACES = 3  # further records with the same problem


def read_examples(path: str, **settings: Any) -> list[Example]:
    """Return all examples of a data set; `settings` are those of `DataConfig`.

    The log shows how many records were dropped, and which fields were ignored.

    Raises:
        InputError: see `iter_examples`.
    """
    counts = ReadingCounts()
    examples = list(iter_examples(DataConfig(path=path, **settings), counts))
    for line in counts.lines():
        log.info("%s: %s", path, line)
    return examples


def iter_examples(config: DataConfig, counts: ReadingCounts | None = None) -> Iterator[Example]:
    """Yield the examples of all sources without keeping them in memory.

    `trainers.data.records` defines the accepted records.

    Args:
        counts: the counts of dropped records and ignored fields are added to it.

    Raises:
        InputError: the data has problems. Raised at the end of the data, with the problems of all
            sources and their lines or indexes; valid examples were yielded before.
    """
    sources = config.all_sources()
    counts = ReadingCounts() if counts is None else counts
    problems: list[Problem] = []
    for index, source in enumerate(sources):
        try:
            if len(sources) == 1:
                yield from _read_source(source, config, counts)
                continue
            for example in _read_source(source, config, counts):
                # Files of two sources may have the same name.
                yield replace(example, id=f"{index}/{example.id}", source=index)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)


def _read_source(
    source: SourceConfig, config: DataConfig, counts: ReadingCounts
) -> Iterator[Example]:
    _check_settings(source)
    if source.path.startswith("demo:"):
        yield from _read_demo(source.path)
        return
    renamer = ColumnRenamer(source.columns, config.ignore)
    ignore = frozenset(config.ignore) - source.columns.keys()
    num_examples = 0
    drop_reasons: set[str] = set()
    problems: list[Problem] = []
    for row in _read_rows(source):
        found = renamer.rename(row) if isinstance(row, Row) else row
        if isinstance(found, Problem):
            problems.append(found)
            continue
        parser = TokenRecordParser if is_tokenised(found.content, ignore) else RecordParser
        record = parser(found, ignore, config.drop)
        example = record.example()
        counts.ignored.update(record.ignored)
        if example is not None:
            num_examples += 1
            counts.add_tool_faults(record.tool_faults, found.id)
            yield example
        elif record.dropped is not None:
            counts.dropped[record.dropped] += 1
            drop_reasons.add(record.dropped)
        else:
            problems += record.problems
    problems = renamer.unknown_columns(source.path) or problems
    if problems:
        raise InputError(_limit_problems(problems, source.path))
    if drop_reasons and not num_examples:
        message = f"all records are dropped ({', '.join(sorted(drop_reasons))})"
        raise InputError(Problem(message=message, where=source.path, fix="add other records"))
    if not num_examples:
        raise InputError(
            Problem(message="no records in the data", where=source.path, fix=ACCEPTED_FORMS)
        )


def _check_settings(source: SourceConfig) -> None:
    """Check that no setting is ignored.

    Raises:
        InputError: a setting of hub data sets is set for files or demo data.
    """
    is_demo = source.path.startswith("demo:")
    if not is_demo and not is_local(source.path):
        return
    defaults: dict[str, Any] = {"name": None, "revision": None, "split": "train"}
    if is_demo:
        defaults["columns"] = {}
    problems = [
        Problem(
            message=f"data.{key} does not apply to {'demo data' if is_demo else 'files'}",
            where=source.path,
            fix=f"remove data.{key}",
        )
        for key, default in defaults.items()
        if getattr(source, key) != default
    ]
    if problems:
        raise InputError(problems)


def data_paths(config: DataConfig) -> list[Path]:
    """Return the local files of all sources; none for hub and demo data.

    Raises:
        InputError: a file is missing or has another format.
    """
    return [
        file.path
        for source in config.all_sources()
        if is_local(source.path)
        for file in find_data_files(source.path)
    ]


def _read_rows(source: SourceConfig) -> Iterator[Row | Problem]:
    if not is_local(source.path):
        yield from read_hub(source)
        return
    for file in find_data_files(source.path):
        yield from read_rows(file.path, file.name)


def _limit_problems(problems: list[Problem], path: str) -> list[Problem]:
    """Return the first problems, each once with the records that also have it."""
    groups: dict[tuple[str, str | None], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.message, problem.fix), []).append(problem)
    listed = [_with_others(*group) for group in groups.values()]
    num_more = len(listed) - _MAX_LISTED
    if num_more <= 0:
        return listed
    more = f"and {num_more} more problem{'s' if num_more > 1 else ''}"
    return [*listed[:_MAX_LISTED], Problem(message=more, where=path)]


def _with_others(problem: Problem, *others: Problem) -> Problem:
    """Return the problem, which names the first other records that also have it."""
    places = [one.where for one in others if one.where]
    if not places:
        return problem
    file = f"{str(problem.where).rpartition(':')[0]}:"
    first = [place.removeprefix(file) for place in places[:_MAX_PLACES]]
    shown = ", ".join(first)
    if all(place.isdecimal() for place in first):
        shown = f"line{'s' if len(first) > 1 else ''} {shown}"
    num_more = len(places) - _MAX_PLACES
    if num_more > 0:
        shown += f" and {format_count(num_more, 'more record')}"
    return replace(problem, message=f"{problem.message} (also {shown})")


def _read_demo(path: str) -> list[Example]:
    if path not in _DEMOS:
        raise InputError(
            Problem(
                message=f"data.path must name an existing demo set, got {path}",
                fix=f"use {' or '.join(_DEMOS)}",
            )
        )
    return _DEMOS[path]()


def _python_docs() -> list[Example]:
    """Return examples with a documentation string as prompt and its object's name as completion.

    The long set is the inverse and has the same ids.
    """
    return [pair(f"python-docs:{name}", prompt=doc, completion=name) for name, doc in python_docs()]


_DEMOS: dict[str, Callable[[], list[Example]]] = {
    "demo:python-docs-short": _python_docs,
    "demo:python-docs-long": lambda: [example.inverted() for example in _python_docs()],
}
