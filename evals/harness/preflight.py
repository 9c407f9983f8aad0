"""Check task names and local benchmark files, without a model and before anything is trained.

lm-eval itself is imported only for a task name that is neither ours nor in the stored list of its
names (`evals.harness.registry`).
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from evals.config import BenchmarkConfig, EvalConfig, TaskConfig
from evals.harness.paper_suite import BENCHMARKS, Row, expanded
from evals.harness.registry import check_names
from trainers.foundation.errors import InputError, Problem

MAX_SHOWN_PROBLEMS = 5


def check_data(config: EvalConfig) -> None:
    """Return if there are such tasks, and local files of theirs and of one's own hold items.

    Raises:
        InputError: they do not; the name, or file and line, of all problems, the first few of each
            file.
    """
    problems: list[Problem] = []
    checks: list[Callable[[], object]] = [
        partial(check_names, config),
        *(partial(_check_task, task, config) for task in expanded(config.tasks)),
        *(partial(check_items, own) for own in config.benchmarks),
    ]
    for check in checks:
        try:
            check()
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)


def check_items(own: BenchmarkConfig) -> int:
    """How many items the file of a benchmark holds.

    Raises:
        InputError: it cannot be read, is empty, or has lines that are no items of its kind.
    """
    is_choice = own.kind == "multiple_choice"
    form = '"choices": ["...", "..."], "label": 0' if is_choice else '"target": "..."'
    return check_rows(
        Path(own.path),
        _choice_fault if is_choice else _target_fault,
        f'a line of kind {own.kind} is {{"prompt": "...", {form}}}',
    )


def check_rows(path: Path, fault_of: Callable[[Row], str | None], fix: str) -> int:
    """How many items a JSONL file holds.

    Raises:
        InputError: it cannot be read, is empty, or has lines that are no items by `fault_of`.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            Problem(message=f"cannot read the items: {reason}", where=str(path), fix=fix)
        ) from None
    problems: list[Problem] = []
    num_items = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        num_items += 1
        fault = _fault(line, fault_of)
        if fault is not None:
            problems.append(Problem(message=fault, where=f"{path}:{number}", fix=fix))
    if num_items == 0:
        problems.append(Problem(message="no items in the file", where=str(path), fix=fix))
    if len(problems) > MAX_SHOWN_PROBLEMS:
        more = len(problems) - MAX_SHOWN_PROBLEMS
        rest = Problem(message=f"{more} more lines are at fault", where=str(path))
        problems = [*problems[:MAX_SHOWN_PROBLEMS], rest]
    if problems:
        raise InputError(problems)
    return num_items


def _fault(line: str, fault_of: Callable[[Row], str | None]) -> str | None:
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"is not JSON: {error}"
    if "\\u" in line and not _is_unicode(row):
        return r"holds half of a surrogate pair, such as \ud83d alone, which is no character"
    return fault_of(row) if isinstance(row, dict) else "must be an object"


def _is_unicode(row: Any) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_task(task: TaskConfig, config: EvalConfig) -> None:
    benchmark = BENCHMARKS.get(task.name)
    if benchmark is None or config.data_root is None:
        return
    path = benchmark.data_file(Path(config.data_root))
    check_rows(path, benchmark.fault_of, "see docs/benchmarks.md for what an item looks like")


def _choice_fault(row: Row) -> str | None:
    choices, label = row.get("choices"), row.get("label")
    if not isinstance(row.get("prompt"), str):
        return f"prompt must be a text, got {row.get('prompt')!r}"
    if (
        not isinstance(choices, list)
        or len(choices) < 2
        or not all(isinstance(choice, str) and choice.strip() for choice in choices)
    ):
        return f"choices must be a list of at least two texts, got {choices!r}"
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < len(choices):
        return f"label must be in [0, {len(choices) - 1}], got {label!r}"
    return None


def _target_fault(row: Row) -> str | None:
    target = row.get("target")
    targets = [target] if isinstance(target, str) else target
    if not isinstance(row.get("prompt"), str):
        return f"prompt must be a text, got {row.get('prompt')!r}"
    if (
        not isinstance(targets, list)
        or not targets
        or not all(isinstance(one, str) and one.strip() for one in targets)
    ):
        return f"target must be a text or a list of texts, got {target!r}"
    return None
