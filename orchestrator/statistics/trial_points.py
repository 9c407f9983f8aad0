"""Convert scores to one value for each trial and group, in points: the data of every analysis.

A group's value is the unweighted mean of its benchmarks. The overall value is the unweighted mean
of the groups. Differences are therefore in the unit that the report shows.

Shapes: N scores, T trials, G groups, C cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.statistics.table import ScoreRow

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Cell = tuple[str, str, str]

OVERALL = "overall"
POINTS = 100.0
# If w_p explains more of the learning rate's variance than this, the two are confounded.
_CONFOUNDED = 0.8
_DISTINCT_FOR_SQUARE = 3
_MAX_ITERATIONS = 500


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The trials of a table as columns.

    Attributes:
        keys: (T) the trial keys of the rows.
        plw, w_p: (T) prompt loss weight and PLW ** 0.30103.
        cell: (T) index into `cells`; only trials of one cell are compared.
        seed: (T) seed names.
        learning_rate: (T, 0 to 2) centred log10 learning rates and their squares, if they vary and
            are not confounded with w_p.
        rates: (T) learning rates, None if unknown.
        is_confounded: whether the learning rate changed along with w_p.
        values: (T, G) group means in points (losses: in their own unit, negated so that higher is
            better). Each benchmark is centred on its mean over the cell. NaN if a trial lacks the
            group.
        is_share: whether scores were shares in [0, 1].
    """

    keys: tuple[tuple[str, ...], ...]
    plw: Array
    w_p: Array
    cell: Ints
    cells: tuple[Cell, ...]
    seed: tuple[str, ...]
    learning_rate: Array
    rates: tuple[float | None, ...]
    is_confounded: bool
    groups: tuple[str, ...]
    values: Array
    is_share: bool

    @property
    def is_complete(self) -> Bools:
        """Mask (T): True if a trial has all groups."""
        return np.asarray(~np.isnan(self.values).any(axis=1), dtype=np.bool_)

    def group_values(self, group: str) -> Array:
        """Return (T): the values of one group, or the mean over all groups; NaN if incomplete."""
        if group == OVERALL:
            return np.asarray(self.values.mean(axis=1), dtype=np.float64)
        return np.asarray(self.values[:, self.groups.index(group)], dtype=np.float64)

    @property
    def verdict_groups(self) -> tuple[str, ...]:
        """The groups with a verdict: all groups, preceded by `overall` if there are several."""
        return (OVERALL, *self.groups) if len(self.groups) > 1 else self.groups


def collect_trials(rows: Sequence[ScoreRow], *, shares: bool = True) -> Trials:
    """Return the trials of checked rows, in order of appearance."""
    number: dict[tuple[str, ...], int] = {}
    first: list[ScoreRow] = []
    trial = np.empty(len(rows), dtype=np.int64)
    for index, row in enumerate(rows):
        key = row.trial_key
        if key not in number:
            number[key] = len(first)
            first.append(row)
        trial[index] = number[key]
    cells = tuple(sorted({row.cell for row in first}))
    position = {cell: index for index, cell in enumerate(cells)}
    w_p = np.array([row.w_p for row in first])
    cell = np.array([position[row.cell] for row in first], dtype=np.int64)
    learning_rate, is_confounded = _learning_rates(first, w_p, cell, len(cells))
    groups = tuple(dict.fromkeys(row.group for row in rows))
    return Trials(
        keys=tuple(number),
        plw=np.array([row.plw for row in first]),
        w_p=w_p,
        cell=cell,
        cells=cells,
        seed=tuple(row.seed for row in first),
        learning_rate=learning_rate,
        rates=tuple(row.learning_rate for row in first),
        is_confounded=is_confounded,
        groups=groups,
        values=_group_means(rows, trial, cell, groups) * (POINTS if shares else 1.0),
        is_share=shares,
    )


def _group_means(
    rows: Sequence[ScoreRow], trial: Ints, cell: Ints, groups: tuple[str, ...]
) -> Array:
    """Return (T, G): mean of each trial's benchmarks, each centred on its mean over the cell."""
    score = np.array([row.score for row in rows])
    of_group = {group: index for index, group in enumerate(groups)}
    group = np.array([of_group[row.group] for row in rows])
    names: dict[tuple[str, int, int], int] = {}
    benchmark = np.array(
        [
            names.setdefault((row.benchmark, int(own), int(cell[each])), len(names))
            for row, own, each in zip(rows, group, trial, strict=True)
        ]
    )
    values = np.full((len(cell), len(groups)), np.nan)
    for index in range(len(groups)):
        own = group == index
        values[:, index] = _centred_means(score[own], trial[own], benchmark[own], len(cell))
    return values


def _centred_means(score: Array, trial: Ints, benchmark: Ints, num_trials: int) -> Array:
    """Return (T): least-squares trial effects of score = benchmark + trial; NaN for absent trials.

    The solution alternates means, so that the difficulty of a missing benchmark does not bias a
    trial. With complete scores the second iteration changes nothing.
    """
    count = np.bincount(trial, minlength=num_trials)
    benchmark = np.unique(benchmark, return_inverse=True)[1]
    sizes = np.bincount(benchmark)
    mean = np.zeros(num_trials)
    for _ in range(_MAX_ITERATIONS):
        centre = np.bincount(benchmark, score - mean[trial]) / sizes
        total = np.bincount(trial, score - centre[benchmark], num_trials)
        found = np.divide(total, count, out=np.zeros_like(mean), where=count > 0)
        has_converged = np.abs(found - mean).max() < 1e-12 * max(1.0, np.abs(score).max())
        mean = found
        if has_converged:
            break
    return np.where(count > 0, mean, np.nan)


def _learning_rates(
    trials: Sequence[ScoreRow], w_p: Array, cell: Ints, num_cells: int
) -> tuple[Array, bool]:
    """Return the terms of the learning rate, and whether it is confounded with w_p."""
    none = np.zeros((len(trials), 0))
    if any(row.learning_rate is None for row in trials):
        return none, False
    logs = np.log10([row.learning_rate for row in trials if row.learning_rate])
    if np.ptp(logs) < 1e-9:
        return none, False
    centred = logs - logs.mean()
    other_terms = np.column_stack([np.eye(num_cells)[cell], w_p, w_p**2])
    rest = centred - other_terms @ np.linalg.lstsq(other_terms, centred, rcond=None)[0]
    own = centred - np.eye(num_cells)[cell] @ (
        np.bincount(cell, centred, num_cells) / np.bincount(cell, minlength=num_cells)
    )
    if own @ own < 1e-12:
        return none, False
    if rest @ rest <= (1 - _CONFOUNDED) * (own @ own) + 1e-12:
        return none, True
    powers = 2 if len(np.unique(logs.round(9))) >= _DISTINCT_FOR_SQUARE else 1
    return np.column_stack([centred**power for power in range(1, powers + 1)]), False
