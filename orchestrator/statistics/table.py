"""The scores that the statistics are fitted to: one row for each benchmark of each trial.

Rows come from a sweep's records or from a CSV file of anyone's.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.foundation.plw_scale import W_P_EXPONENT
from trainers.foundation.errors import InputError, Problem

Array = NDArray[np.float64]

# What people call a column, by the name it has here.
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "benchmark": ("benchmark", "bench", "task", "measure", "metric"),
    "group": ("group",),
    "plw": ("plw", "prompt_loss_weight"),
    "w_p": ("w_p", "w"),
    "seed": ("seed", "set"),
    "trial": ("trial", "trial_id", "run", "checkpoint"),
    "model": ("model",),
    "data_set": ("data_set", "dataset", "data"),
    "condition": ("condition", "normalization"),
    "score": ("score", "value", "y"),
    "standard_error": ("standard_error", "stderr", "se"),
    "num_items": ("num_items", "items", "n"),
    "learning_rate": ("learning_rate", "lr"),
}
DEFAULT_GROUP = "scores"
_MAX_PROBLEMS = 10
# Columns that are read past: what spreadsheets and data frames add by themselves.
_IGNORED = ("", "index", "unnamed: 0", "w2", "unit", "notes")


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One benchmark's score of one trial.

    `score` is a share in [0, 1], or any number on a loss's scale. Trials are compared within one
    `model`, `data_set` and `condition` (such as the loss's normalization), never across.
    `trial` names the checkpoint; rows of one trial share its luck.
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
    num_items: int | None = None
    learning_rate: float | None = None

    @property
    def w_p(self) -> float:
        """PLW ** 0.30103. Source: arXiv 2401.13586."""
        return float(self.plw**W_P_EXPONENT)

    @property
    def cell(self) -> tuple[str, str, str]:
        """What trials must share to be compared: model, data set and condition."""
        return (self.model, self.data_set, self.condition)

    @property
    def trial_key(self) -> tuple[str, ...]:
        """Which checkpoint this is a score of."""
        if self.trial:
            return (*self.cell, self.trial)
        return (*self.cell, f"{self.plw:g}", str(self.learning_rate), self.seed)


def plw_of(w_p: float) -> float:
    """The PLW whose w_p = PLW ** 0.30103 is given, in [0, 1]."""
    return float(max(w_p, 0.0) ** (1 / W_P_EXPONENT))


def check_rows(
    rows: Sequence[ScoreRow], *, shares: bool = True, places: Sequence[str] | None = None
) -> None:
    """Refuse rows that no model could be fitted to.

    Args:
        shares: whether scores are shares in [0, 1].
        places: where each row stands, for the message.

    Raises:
        InputError: with every problem, ten at most.
    """
    problems: list[Problem] = []
    if not rows:
        problems.append(Problem(message="there are no scores", fix="give a row for each score"))
    seen: dict[tuple[tuple[str, ...], str], str] = {}
    plws: dict[tuple[str, ...], float] = {}
    for number, row in enumerate(rows):
        where = places[number] if places else f"score {number + 1}"
        problems += _row_problems(row, where, shares)
        key = (row.trial_key, row.benchmark)
        if key in seen:
            problems.append(
                Problem(
                    message=f"a second score of {row.benchmark} for one trial at PLW {row.plw:g} "
                    f"(the first: {seen[key]})",
                    where=where,
                    fix="tell the trials apart in a column `seed` or `trial`",
                )
            )
        seen.setdefault(key, where)
        if plws.setdefault(row.trial_key, row.plw) != row.plw:
            problems.append(
                Problem(
                    message=f"trial {row.trial} has PLW {plws[row.trial_key]:g} and {row.plw:g}",
                    where=where,
                    fix="give every trial one PLW and a name of its own",
                )
            )
    if problems:
        raise InputError(problems[:_MAX_PROBLEMS])


def _row_problems(row: ScoreRow, where: str, shares: bool) -> list[Problem]:
    problems = []
    if not 0 <= row.plw <= 1:
        problems.append(
            Problem(
                message=f"plw must be in [0, 1], got {row.plw:g}",
                where=where,
                fix="give the weight of prompt tokens",
            )
        )
    if shares and not 0 <= row.score <= 1:
        fix = "divide percentages by 100" if 1 < row.score <= 100 else "give the share of the best"
        problems.append(
            Problem(message=f"score must be in [0, 1], got {row.score:g}", where=where, fix=fix)
        )
    elif not math.isfinite(row.score):
        problems.append(
            Problem(
                message=f"score must be a number, got {row.score}",
                where=where,
                fix="leave out rows without a score",
            )
        )
    for name in ("standard_error", "num_items", "learning_rate"):
        value = getattr(row, name)
        least_excluded = name != "standard_error"
        if value is not None and not (value > 0 or (value == 0 and not least_excluded)):
            problems.append(
                Problem(
                    message=f"{name} must be positive, got {value:g}",
                    where=where,
                    fix="leave it empty where it is not known",
                )
            )
    return problems


def read_scores(path: Path, *, shares: bool = True) -> list[ScoreRow]:
    """The rows of a CSV file with a header; needs `score`, `benchmark` and `plw` or `w_p`.

    Raises:
        InputError: the file cannot be read, lacks a column, or rows are refused, each by its line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or []
            lines = [(reader.line_num, line) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            Problem(
                message=f"cannot be read: {error}", where=str(path), fix="give a CSV file in UTF-8"
            )
        ) from None
    names = _columns(header, str(path))
    problems: list[Problem] = []
    rows: list[ScoreRow] = []
    places: list[str] = []
    for number, line in lines:
        where = f"{path}:{number}"
        try:
            rows.append(_row({names[key]: value for key, value in line.items() if key in names}))
            places.append(where)
        except ValueError as error:
            problems.append(Problem(message=str(error), where=where, fix="write a plain number"))
    if problems:
        raise InputError(problems[:_MAX_PROBLEMS])
    check_rows(rows, shares=shares, places=places)
    return rows


def _columns(header: Iterable[str], where: str) -> dict[str, str]:
    """Our name of each of the file's columns that has one."""
    ours = {alias: name for name, aliases in COLUMN_NAMES.items() for alias in aliases}
    found = {
        column: ours[column.strip().lower()] for column in header if column.strip().lower() in ours
    }
    problems = []
    for column in header:
        if column not in found and column.strip().lower() not in _IGNORED:
            near = get_close_matches(column.strip().lower(), list(ours), 1)
            problems.append(
                Problem(
                    message=f"column `{column}` is none that is known",
                    where=f"{where}:1",
                    fix=f"did you mean `{near[0]}`?"
                    if near
                    else f"drop it, or name it one of {', '.join(COLUMN_NAMES)}",
                )
            )
    names = set(found.values())
    if len(names) < len(found):
        problems.append(
            Problem(message="two columns mean the same", where=f"{where}:1", fix="keep one of them")
        )
    missing = [name for name in ("benchmark", "score") if name not in names]
    missing += [] if names & {"plw", "w_p"} else ["plw"]
    problems += [
        Problem(
            message=f"has no column `{name}`",
            where=f"{where}:1",
            fix=f"add it (also known as {', '.join(COLUMN_NAMES[name])})",
        )
        for name in missing
    ]
    if problems:
        raise InputError(problems)
    return found


def _row(line: Mapping[str, Any]) -> ScoreRow:
    given = {key: value.strip() for key, value in line.items() if value and value.strip()}
    plw = _number(given, "plw")
    if plw is None:
        at_w_p = _number(given, "w_p")
        if at_w_p is None or not 0 <= at_w_p <= 1:
            raise ValueError(f"needs a plw, or a w_p in [0, 1], got {given.get('w_p', 'none')}")
        # Rounded, so that one weight written as w_p is one weight, and 0.1 reads as 0.1.
        plw = float(f"{plw_of(at_w_p):.6g}")
    score = _number(given, "score")
    if score is None or "benchmark" not in given:
        raise ValueError(f"has no {'score' if score is None else 'benchmark'}")
    items = _number(given, "num_items")
    texts = {
        key: given[key]
        for key in ("group", "seed", "trial", "model", "data_set", "condition")
        if key in given
    }
    return ScoreRow(
        benchmark=given["benchmark"],
        plw=plw,
        score=score,
        standard_error=_number(given, "standard_error"),
        num_items=None if items is None else int(items),
        learning_rate=_number(given, "learning_rate"),
        **texts,
    )


def _number(given: Mapping[str, str], name: str) -> float | None:
    if name not in given:
        return None
    try:
        value = float(given[name])
    except ValueError:
        raise ValueError(f"{name} must be a number, got {given[name]!r}") from None
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {given[name]!r}")
    return value
