"""Read and check rows of scores, one row for each benchmark of each trial.

Rows come from a sweep's records or from a user's CSV file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.foundation.plw_scale import w_p
from orchestrator.statistics.columns import find_columns, is_known
from orchestrator.statistics.csv_text import read_csv_text
from orchestrator.statistics.row_parser import RowParser
from trainers.foundation.errors import InputError, Problem

Array = NDArray[np.float64]

# Larger losses are not plausible, and their squares overflow.
LARGEST_SCORE = 1e50
DEFAULT_GROUP = "scores"
# Name of the verdict on the mean of all groups.
_MEAN_OF_GROUPS = "overall"
_MAX_PROBLEMS = 10
# Useful accuracies are higher; percentages that were divided by 100 twice are lower.
_TOO_SMALL = 0.02


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One benchmark's score of one trial.

    `score` is a share in [0, 1], or any number for losses. Trials are compared only within the same
    `model`, `data_set` and `condition` (such as the loss normalization). `trial` names the
    checkpoint; rows of one trial share the noise of its training run. `interval` is the score's 95%
    interval over items, if known; it is only displayed.
    """

    benchmark: str
    plw: float
    score: float
    group: str = DEFAULT_GROUP
    seed: str = "0"
    trial: str = ""
    model: str = ""
    data_set: str = ""
    condition: str = ""
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    num_items: int | None = None
    learning_rate: float | None = None

    @property
    def w_p(self) -> float:
        """PLW ** 0.30103. Source: arXiv 2401.13586."""
        return w_p(self.plw)

    @property
    def cell(self) -> tuple[str, str, str]:
        """Model, data set and condition: only trials with the same cell are compared."""
        return (self.model, self.data_set, self.condition)

    @property
    def trial_key(self) -> tuple[str, ...]:
        """Key of the checkpoint that was scored."""
        if self.trial:
            return (self.model, self.data_set, self.condition, self.trial)
        return (
            self.model,
            self.data_set,
            self.condition,
            f"{self.plw:g}",
            str(self.learning_rate),
            self.seed,
        )


def read_scores(path: Path, *, shares: bool = True) -> list[ScoreRow]:
    """Read a CSV file with a header; `score`, `benchmark` and `plw` or `w_p` are required.

    Weights and learning rates are rounded to 6 significant digits, so 0.1 and 0.1000000001 are one
    weight.

    Args:
        shares: whether scores must be shares in [0, 1]. If False, they are losses on any scale.

    Raises:
        InputError: the file cannot be read, lacks a column, or has bad lines; lists at most ten
            problems.
    """
    table = read_csv_text(path, is_known)
    parser = RowParser(find_columns(table), table)
    rows: list[ScoreRow] = []
    lines: list[int] = []
    unreadable: list[Problem] = []
    try:
        for line, fields in table.records():
            values = parser.parse(line, fields)
            if values is not None:
                rows.append(ScoreRow(**values))
                lines.append(line)
    except InputError as error:
        unreadable = error.problems
    parser.finish()
    found = [(lines[index], problem) for index, problem in
             _problems(rows, shares, lambda index: f"{path}:{lines[index]}")]  # fmt: skip
    in_order = sorted([*parser.problems, *found], key=lambda one: one[0])
    problems = [*(problem for _, problem in in_order), *unreadable]
    if not rows and not problems:
        problems = [_no_scores(str(path))]
    _raise_any(problems)
    return rows


def check_rows(rows: Sequence[ScoreRow], *, shares: bool = True) -> None:
    """Check that a model can be fitted to the rows.

    Args:
        shares: whether scores are shares in [0, 1].

    Raises:
        InputError: rows cannot be used; lists at most ten problems.
    """
    found = _problems(rows, shares, lambda index: f"score {index + 1}")
    _raise_any([problem for _, problem in found] if rows else [_no_scores(None)])


def scale_warning(rows: Sequence[ScoreRow]) -> str | None:
    """Return a warning if all shares are tiny; else None."""
    if max(row.score for row in rows) >= _TOO_SMALL:
        return None
    return (
        f"all scores are below {_TOO_SMALL:g}: they are near the floor, or were divided by 100 "
        "twice"
    )


def _no_scores(where: str | None) -> Problem:
    return Problem(message="no scores found", where=where, fix="give one row per score")


def _raise_any(problems: Sequence[Problem]) -> None:
    if not problems:
        return
    if len(problems) > _MAX_PROBLEMS:
        left_out = len(problems) - _MAX_PROBLEMS + 1
        more = Problem(message=f"and {left_out} more problems")
        problems = [*problems[: _MAX_PROBLEMS - 1], more]
    raise InputError(problems)


def _problems(
    rows: Sequence[ScoreRow], shares: bool, where: Callable[[int], str]
) -> list[tuple[int, Problem]]:
    """Return each problem with its row index, in order; `where` describes a row by its index."""
    problems: list[tuple[int, Problem]] = []
    for index, row in enumerate(rows):
        problems += [
            (index, Problem(message=message, where=where(index), fix=fix))
            for message, fix in _row_faults(row)
        ]
    problems += _score_problems(rows, shares, where)
    problems += _trial_problems(rows, where)
    groups = {row.group for row in rows}
    if len(groups) > 1 and _MEAN_OF_GROUPS in groups:
        first = next(index for index, row in enumerate(rows) if row.group == _MEAN_OF_GROUPS)
        message = f"group name `{_MEAN_OF_GROUPS}` is reserved for the mean of all groups"
        fix = "remove rows of means, or rename the group"
        problems.append((first, Problem(message=message, where=where(first), fix=fix)))
    return sorted(problems, key=lambda one: one[0])


def _row_faults(row: ScoreRow) -> list[tuple[str, str]]:
    """Return (message, fix) of each problem of one row."""
    faults = []
    if not 0 <= row.plw <= 1:
        faults.append((f"plw must be in [0, 1], got {row.plw:g}", "give the prompt loss weight"))
    if row.standard_error is not None and not row.standard_error >= 0:
        faults.append(_not_positive("standard_error", row.standard_error))
    if row.num_items is not None and not row.num_items > 0:
        faults.append(_not_positive("num_items", row.num_items))
    if row.learning_rate is not None and not row.learning_rate > 0:
        faults.append(_not_positive("learning_rate", row.learning_rate))
    return faults


def _not_positive(name: str, value: float) -> tuple[str, str]:
    return f"{name} must be positive, got {value:g}", "leave it empty if unknown"


def _score_problems(
    rows: Sequence[ScoreRow], shares: bool, where: Callable[[int], str]
) -> list[tuple[int, Problem]]:
    """Return at most one problem, because a column on another scale is a single mistake."""
    if shares:
        bad = [index for index, row in enumerate(rows) if not 0 <= row.score <= 1]
    else:
        bad = [index for index, row in enumerate(rows) if not abs(row.score) < LARGEST_SCORE]
    if not bad:
        return []
    values = [rows[index].score for index in bad]
    rule = "score must be in [0, 1]" if shares else f"score must be within {LARGEST_SCORE:g}"
    message = f"{rule}, got {values[0]:g}"
    if len(bad) > 1:
        message += f" ({len(bad)} of {len(rows)} scores, from {min(values):g} to {max(values):g})"
    fix = "remove rows without a score"
    if shares:
        fix = "put losses or errors in a separate file and use --lower-is-better"
        if min(values) >= 0 and max(values) <= 100:
            fix = f"divide percentages by 100; {fix}"
    return [(bad[0], Problem(message=message, where=where(bad[0]), fix=fix))]


def _trial_problems(
    rows: Sequence[ScoreRow], where: Callable[[int], str]
) -> list[tuple[int, Problem]]:
    """Return the problems of duplicate scores and of trials with two weights."""
    problems = []
    numbers: dict[tuple[str, ...], int] = {}
    plws: list[float] = []
    of_two_weights: set[int] = set()
    seen: dict[tuple[int, str], int] = {}
    for index, row in enumerate(rows):
        number = numbers.setdefault(row.trial_key, len(plws))
        if number == len(plws):
            plws.append(row.plw)
        message = fix = None
        if row.plw != plws[number]:
            if number not in of_two_weights:
                message = f"trial {row.trial} has PLW {plws[number]:g} and {row.plw:g}"
                fix = (
                    "give every trial one PLW and a unique name; if the column numbers "
                    "repetitions, rename it `seed`"
                )
            of_two_weights.add(number)
        else:
            first = seen.setdefault((number, row.benchmark), index)
            if first != index:
                message = (
                    f"second score of {row.benchmark} for one trial at PLW {row.plw:g} (first: "
                    f"{where(first)})"
                )
                fix = "distinguish the trials in a column `seed` or `trial`"
        if message is not None:
            problems.append((index, Problem(message=message, where=where(index), fix=fix)))
    return problems
