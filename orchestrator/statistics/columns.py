"""The columns of a file of scores: which of its headings means what."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from orchestrator.statistics.csv_text import CsvText
from trainers.foundation.errors import InputError, Problem

# What people call a column, by the name it has here.
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
_OURS = {alias: name for name, aliases in COLUMN_NAMES.items() for alias in aliases}
# Columns that are read past: what spreadsheets and data frames add by themselves.
_IGNORED = ("", "index", "unnamed:_0", "w2", "unit", "notes")
# Headings that mean different things in different files.
_AMBIGUOUS = ("set", "split")


def is_known(heading: str) -> bool:
    """Whether `heading` names a column."""
    return _plain(heading) in _OURS


def find_columns(table: CsvText) -> dict[str, int]:
    """The places of the columns, by our names for them.

    Raises:
        InputError: with every column that is unknown, missing or there twice.
    """
    where = f"{table.path}:{table.line}"
    headings: dict[str, list[str]] = {}
    places: dict[str, int] = {}
    problems = []
    for place, heading in enumerate(table.header):
        name = _OURS.get(_plain(heading))
        if name is not None:
            headings.setdefault(name, []).append(heading)
            places[name] = place
        elif _plain(heading) not in _IGNORED:
            problems.append(_unknown(heading, table.header, where))
    problems += _repeated(headings, where)
    problems += _missing(places, where)
    if problems:
        raise InputError(problems)
    return places


def _plain(heading: str) -> str:
    return heading.strip().lower().replace(" ", "_").replace("-", "_")


def _unknown(heading: str, header: Sequence[str], where: str) -> Problem:
    plain = _plain(heading)
    near = get_close_matches(plain, list(_OURS), 1)
    if plain in _AMBIGUOUS:
        message = f"column `{heading}` may be a seed, a split or a data set"
        fix = "rename it `seed`, `data_set` or `condition`, or drop it"
    else:
        message = f"unknown column `{heading}`"
        fix = f"drop it, or name it one of {', '.join(COLUMN_NAMES)}"
        if len(header) == 1:
            fix = "separate columns by commas, semicolons or tabs"
        elif near:
            fix = f"did you mean `{near[0]}`?"
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


def _missing(places: Mapping[str, int], where: str) -> list[Problem]:
    missing = {
        name: f"also known as {', '.join(COLUMN_NAMES[name][1:])}"
        for name in ("benchmark", "score")
        if name not in places
    }
    if not {"plw", "w_p"} & set(places):
        missing["plw"] = "also known as prompt_loss_weight; or w_p, which is PLW ** 0.30103"
    return [
        Problem(message=f"has no column `{name}`", where=where, fix=f"add it ({also})")
        for name, also in missing.items()
    ]
