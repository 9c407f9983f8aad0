"""Map the headings of a CSV file of scores to columns."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from orchestrator.statistics.csv_text import CsvText
from trainers.foundation.errors import InputError, Problem

# Accepted headings by column name.
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "benchmark": ("benchmark", "bench", "task", "measure", "metric"),
    "group": ("group",),
    "plw": ("plw", "prompt_loss_weight"),
    "w_p": ("w_p", "w"),
    "seed": ("seed",),
    "trial": ("trial", "trial_id", "run", "checkpoint"),
    "model": ("model",),
    "data_set": ("data_set", "dataset", "data"),
    "condition": ("condition", "normalization"),
    "score": ("score", "value", "y"),
    "standard_error": ("standard_error", "stderr", "se"),
    "num_items": ("num_items", "items", "n"),
    "learning_rate": ("learning_rate", "lr"),
}
NUMBERS = ("plw", "w_p", "score", "standard_error", "num_items", "learning_rate")
_NAME_BY_ALIAS = {alias: name for name, aliases in COLUMN_NAMES.items() for alias in aliases}
# Ignored columns that spreadsheets and data frames add.
_IGNORED = ("", "index", "unnamed:_0", "w2", "unit", "notes")
# Headings whose meaning differs between files.
_AMBIGUOUS = ("set", "split")


def is_known(heading: str) -> bool:
    """Return whether `heading` names a column."""
    return _normalize(heading) in _NAME_BY_ALIAS


def find_columns(table: CsvText) -> dict[str, int]:
    """Return the index of each column by its standard name.

    Raises:
        InputError: columns are unknown, missing or duplicate; lists all of them.
    """
    where = f"{table.path}:{table.line}"
    headings: dict[str, list[str]] = {}
    indices: dict[str, int] = {}
    problems = []
    for index, heading in enumerate(table.header):
        name = _NAME_BY_ALIAS.get(_normalize(heading))
        if name is not None:
            headings.setdefault(name, []).append(heading)
            indices[name] = index
        elif _normalize(heading) not in _IGNORED:
            problems.append(_unknown(heading, table.header, where))
    problems += _repeated(headings, where)
    problems += _missing(indices, where)
    if problems:
        raise InputError(problems)
    return indices


def _normalize(heading: str) -> str:
    return heading.strip().lower().replace(" ", "_").replace("-", "_")


def _unknown(heading: str, header: Sequence[str], where: str) -> Problem:
    name = _normalize(heading)
    close = get_close_matches(name, list(_NAME_BY_ALIAS), 1)
    if name in _AMBIGUOUS:
        message = f"column `{heading}` is ambiguous: seed, split or data set"
        fix = "rename it `seed`, `data_set` or `condition`, or remove it"
    else:
        message = f"unknown column `{heading}`"
        fix = f"remove it, or rename it to one of {', '.join(COLUMN_NAMES)}"
        if len(header) == 1:
            fix = "separate columns by commas, semicolons or tabs"
        elif close:
            fix = f"rename it `{close[0]}`"
    return Problem(message=message, where=where, fix=fix)


def _repeated(headings: Mapping[str, Sequence[str]], where: str) -> list[Problem]:
    return [
        Problem(
            message=f"columns {' and '.join(f'`{each}`' for each in found)} all mean {name}"
            if len(found) > 2
            else f"columns `{found[0]}` and `{found[1]}` both mean {name}",
            where=where,
            fix="keep one of them",
        )
        for name, found in headings.items()
        if len(found) > 1
    ]


def _missing(indices: Mapping[str, int], where: str) -> list[Problem]:
    missing = {
        name: f"also known as {', '.join(COLUMN_NAMES[name][1:])}"
        for name in ("benchmark", "score")
        if name not in indices
    }
    if not {"plw", "w_p"} & set(indices):
        missing["plw"] = "also known as prompt_loss_weight; or w_p, which is PLW ** 0.30103"
    return [
        Problem(message=f"missing column `{name}`", where=where, fix=f"add it ({also})")
        for name, also in missing.items()
    ]
