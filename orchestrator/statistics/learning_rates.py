"""Separate the learning rates of a table, if each was tried with several weights and seeds.

The effect of the weight may depend on the learning rate, so it must not be averaged over rates.
Weights are compared at the best rate of each cell; each other rate has a verdict of its own.

The best rate is the one with the highest mean over all weights. Under equal noise, that choice is
independent of the differences between weights, so it does not bias their comparison. Choosing the
best rate of each weight does: also if it is chosen from other seeds, tests of equal weights find an
effect in 7% to 22% of studies of three weights (docs/design-log.md).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.statistics.table import ScoreRow
from orchestrator.statistics.trial_points import Cell, Trials, collect_trials

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

# A rate with fewer weights cannot compare any; trials of the others may have diverged.
_MIN_WEIGHTS = 2
# Minimum share of the pairs of a weight and a rate that must exist, and of the existing pairs that
# must be at rates with enough weights.
_MIN_PAIRS = 2 / 3
# Minimum mean number of trials of such a pair. With two, tests at several rates find an effect that
# does not exist in up to 10% of studies (docs/design-log.md).
_MIN_TRIALS = 2.5


@dataclass(frozen=True, kw_only=True)
class BestRate:
    """The learning rate at which the weights of a cell are compared.

    Attributes:
        name: the cell without the rate, such as `model tiny, loss.normalization tokens`.
        cell: the cell of the trials at this rate; its condition contains the rate.
        learning_rate: the rate with the highest mean over all weights.
        tried: all rates with any score, ascending.
        best_by_weight: for each tried PLW, the rate with its highest mean.
    """

    name: str
    cell: Cell
    learning_rate: float
    tried: tuple[float, ...]
    best_by_weight: tuple[tuple[float, float], ...]


def rates_as_conditions(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """Return the rows with the learning rate as a part of the condition, if rates are crossed.

    Rates are crossed if in each cell, of the rates with at least two weights, there are two or
    more, two thirds of their pairs with a weight exist, and pairs have 2.5 trials on average. At
    most a third of all pairs may be at rates with a single weight. This depends on which trials
    exist, never on their scores. Other rows are returned unchanged.
    """
    if not _has_rates(rows) or not _are_crossed(collect_trials(rows)):
        return list(rows)
    return [replace(row, condition=_condition(row.condition, row.learning_rate)) for row in rows]


def find_best_rates(rows: Sequence[ScoreRow], *, shares: bool = True) -> tuple[BestRate, ...]:
    """Return the best rate of each cell; empty if rates are not crossed.

    Args:
        rows: checked rows before `rates_as_conditions`, higher is better.
        shares: see `conclusions.draw_conclusions`.
    """
    if not _has_rates(rows):
        return ()
    trials = collect_trials(rows, shares=shares)
    if not _are_crossed(trials):
        return ()
    values = trials.group_values(trials.verdict_groups[0])
    cells = [np.flatnonzero(trials.cell == cell) for cell in range(len(trials.cells))]
    found = [_best_rate(trials, values, of_cell) for of_cell in cells]
    best = tuple(each for each in found if each is not None)
    return best if len(best) == len(cells) else ()


def _condition(condition: str, rate: float | None) -> str:
    return ", ".join(filter(None, [condition, f"learning rate {rate:g}"]))


def _has_rates(rows: Sequence[ScoreRow]) -> bool:
    rates = {row.learning_rate for row in rows}
    return len(rates) > 1 and None not in rates


def _are_crossed(trials: Trials) -> bool:
    for cell in range(len(trials.cells)):
        of_cell = np.flatnonzero(trials.cell == cell)
        pairs = Counter((trials.plw[each], trials.rates[each]) for each in of_cell)
        rates = _comparable_rates(pairs)
        kept = {pair: count for pair, count in pairs.items() if pair[1] in rates}
        plws = {plw for plw, _ in kept}
        if (
            len(rates) < 2
            or len(kept) < _MIN_PAIRS * max(len(plws) * len(rates), len(pairs))
            or sum(kept.values()) < _MIN_TRIALS * len(kept)
        ):
            return False
    return True


def _comparable_rates(pairs: Iterable[tuple[float, float | None]]) -> set[float | None]:
    """Return the rates of distinct pairs of a weight and a rate that have several weights."""
    weights = Counter(rate for _, rate in pairs)
    return {rate for rate, count in weights.items() if count >= _MIN_WEIGHTS}


def _best_rate(trials: Trials, values: Array, of_cell: Ints) -> BestRate | None:
    """Return the best rate of a cell; None if no rate has two weights with values."""
    tried = np.unique([trials.rates[each] for each in of_cell])
    scored = of_cell[~np.isnan(values[of_cell])]
    candidates = _comparable_rates({(trials.plw[each], trials.rates[each]) for each in scored})
    if not candidates:
        return None
    of_cell = np.array([each for each in scored if trials.rates[each] in candidates])
    own = values[of_cell]
    plws, plw = np.unique(trials.plw[of_cell], return_inverse=True)
    rates, rate = np.unique([trials.rates[each] for each in of_cell], return_inverse=True)
    # Additive effects, so that a missing pair of a weight and a rate does not bias its rate.
    terms = np.hstack([np.eye(len(rates))[rate], np.eye(len(plws))[plw][:, 1:]])
    effects = np.linalg.lstsq(terms, own, rcond=None)[0][: len(rates)]
    best = float(rates[int(np.argmax(effects))])
    by_weight = []
    for index, weight in enumerate(plws):
        means = [own[(plw == index) & (rate == each)] for each in range(len(rates))]
        highest = max(
            (float(found.mean()), bool(at == best), float(at))
            for found, at in zip(means, rates, strict=True)
            if len(found)
        )
        by_weight.append((float(weight), highest[2]))
    model, data_set, condition = trials.cells[trials.cell[of_cell[0]]]
    return BestRate(
        name=", ".join(filter(None, [model, data_set, condition])),
        cell=(model, data_set, _condition(condition, best)),
        learning_rate=best,
        tried=tuple(float(each) for each in tried),
        best_by_weight=tuple(by_weight),
    )
