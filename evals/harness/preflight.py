"""Check task names and local benchmark files before training, without a model.

lm-eval is imported only for a task name that is neither built in nor in the cached list of
lm-eval's names (`evals.harness.registry`).
"""

import json
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from evals.config import BenchmarkConfig, EvalConfig, TaskConfig
from evals.harness.paper_suite import BENCHMARKS, Row, expand_groups
from evals.harness.registry import check_task_names
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.extras import require_package
from trainers.foundation.jsonl import JsonlRow, parse_jsonl

MAX_SHOWN_PROBLEMS = 5


def check_benchmarks(config: EvalConfig) -> None:
    """Check that the tasks exist and that local benchmark files are valid.

    Raises:
        InputError: lm-eval is missing, or there are problems; the error lists at most
            `MAX_SHOWN_PROBLEMS` of each file, with task name or file and line.
    """
    check_installed(config)
    problems: list[Problem] = []
    checks: list[Callable[[], object]] = [
        partial(check_task_names, config),
        *(partial(check_paper_files, task, config) for task in expand_groups(config.tasks)),
        *(partial(check_custom_benchmark, custom) for custom in config.benchmarks),
    ]
    for check in checks:
        try:
            check()
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)


def check_installed(config: EvalConfig) -> None:
    """Check that lm-eval is installed if `config` has tasks or benchmarks.

    Raises:
        InputError: it is not installed.
    """
    for setting in ("tasks", "benchmarks"):
        if getattr(config, setting):
            require_package("lm_eval", feature=f"evals.{setting}", extra="benchmarks")


def check_custom_benchmark(benchmark: BenchmarkConfig) -> None:
    """Check the file of a custom benchmark.

    Raises:
        InputError: the file cannot be read, is empty, or has lines that are invalid for its kind.
    """
    is_choice = benchmark.kind == "multiple_choice"
    form = '"choices": ["...", "..."], "label": 0' if is_choice else '"target": "..."'
    check_rows(
        Path(benchmark.path),
        _choice_error if is_choice else _target_error,
        f'a line of kind {benchmark.kind} is {{"prompt": "...", {form}}}',
    )


def check_rows(path: Path, find_error: Callable[[Row], str | None], fix: str) -> None:
    """Check the rows of a JSONL file.

    Raises:
        InputError: the file cannot be read or is empty, or `find_error` rejects a row.
    """
    try:
        stat = path.stat()
        rows = _parsed_rows(path, stat.st_size, stat.st_mtime_ns, fix)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            Problem(message=f"cannot read the file: {reason}", where=str(path), fix=fix)
        ) from None
    problems: list[Problem] = []
    for row in rows:
        if isinstance(row, Problem):
            problems.append(row)
            continue
        message = _row_error(row, find_error)
        if message is not None:
            problems.append(Problem(message=message, where=row.where, fix=fix))
    if not rows:
        problems.append(Problem(message="the file contains no items", where=str(path), fix=fix))
    if len(problems) > MAX_SHOWN_PROBLEMS:
        more = len(problems) - MAX_SHOWN_PROBLEMS
        rest = Problem(message=f"{more} more invalid lines", where=str(path))
        problems = [*problems[:MAX_SHOWN_PROBLEMS], rest]
    if problems:
        raise InputError(problems)


# Both directions of a translation benchmark have the same file, and `plw eval` checks files twice.
@lru_cache(maxsize=4)
def _parsed_rows(path: Path, size: int, mtime_ns: int, fix: str) -> list[JsonlRow | Problem]:
    return list(parse_jsonl(path, path.read_text(encoding="utf-8-sig"), fix=fix))


def _row_error(row: JsonlRow, find_error: Callable[[Row], str | None]) -> str | None:
    if "\\u" in row.line and not _is_unicode(row.content):
        return r"contains half of a surrogate pair, such as \ud83d alone, which is not a character"
    return find_error(row.content) if isinstance(row.content, dict) else "must be an object"


def _is_unicode(row: Any) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def check_paper_files(task: TaskConfig, config: EvalConfig) -> None:
    """Check the local file of a benchmark of the paper; does nothing for other tasks.

    Raises:
        InputError: the file does not exist or has invalid items.
    """
    benchmark = BENCHMARKS.get(task.name)
    if benchmark is None or config.data_root is None:
        return
    path = benchmark.data_file(Path(config.data_root))
    check_rows(path, benchmark.find_error, "see docs/benchmarks.md for the form of an item")


def _choice_error(row: Row) -> str | None:
    choices, label = row.get("choices"), row.get("label")
    if not isinstance(row.get("prompt"), str):
        return f"prompt must be text, got {row.get('prompt')!r}"
    if (
        not isinstance(choices, list)
        or len(choices) < 2
        or not all(isinstance(choice, str) and choice.strip() for choice in choices)
    ):
        return f"choices must be a list of at least two texts, got {choices!r}"
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < len(choices):
        return f"label must be in [0, {len(choices) - 1}], got {label!r}"
    return None


def _target_error(row: Row) -> str | None:
    target = row.get("target")
    targets = [target] if isinstance(target, str) else target
    if not isinstance(row.get("prompt"), str):
        return f"prompt must be text, got {row.get('prompt')!r}"
    if (
        not isinstance(targets, list)
        or not targets
        or not all(isinstance(one, str) and one.strip() for one in targets)
    ):
        return f"target must be text or a list of texts, got {target!r}"
    return None
