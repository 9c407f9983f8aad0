"""The trials that would say most about where the best weight is: a greedy c-optimal design.

The top of a quadratic is where its slope is 0, so the variance of the slope over all w_p that may
still be the best one is what the next trials should bring down.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from orchestrator.statistics.curves import Cell, Trials
from orchestrator.transform import w_p as w_p_of

Array = NDArray[np.float64]

# Weights that are worth a trial beside those tried: the published grid, in round numbers.
LADDER = (0.0, 0.0005, 0.002, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
NUM_RUNS = 5
# Of more cells, as a search over other settings makes, those with most trials are looked at.
MAX_CELLS = 8
_NUM_PLACES = 21
_RIDGE = 1e-3


@dataclass(frozen=True, kw_only=True)
class NextRun:
    """A trial to run: its weight, a seed that this weight has not had, and its cell.

    `learning_rate`: the middle one of those tried; None where none are known.
    `width_left`: the expected width of the interval after it and those before it in the list, as
    a share of today's; None where there is no interval today.
    """

    plw: float
    seed: int
    cell: Cell
    learning_rate: float | None
    width_left: float | None


def next_runs(
    trials: Trials, may_be_best: Sequence[tuple[float, float]] = (), num_runs: int = NUM_RUNS
) -> list[NextRun]:
    """The `num_runs` trials that help most, each given those before it.

    Args:
        may_be_best: pieces of w_p that are not ruled out; without them, all of the range.
    """
    terms = trials.terms()
    slopes = _slopes(trials, may_be_best or (_whole(trials),), terms.shape[1])
    candidates = _candidates(trials, terms.shape[1])
    information = terms.T @ terms
    freedom = len(terms) - np.linalg.matrix_rank(terms)
    is_known = freedom > 0 and np.linalg.matrix_rank(terms) == terms.shape[1]
    before = _width(information, slopes, freedom) if is_known else None
    taken = {
        (cell, plw, seed)
        for cell, plw, seed in zip(
            (trials.cells[each] for each in trials.cell),
            trials.plw.tolist(),
            trials.seed,
            strict=True,
        )
    }
    rates = sorted(rate for rate in trials.rates if rate is not None)
    rate = rates[len(rates) // 2] if rates else None
    found: list[NextRun] = []
    for number in range(1, num_runs + 1):
        losses = [_variance(information + np.outer(row, row), slopes) for _, _, row in candidates]
        cell, plw, row = candidates[int(np.argmin(losses))]
        information = information + np.outer(row, row)
        seed = next(each for each in range(len(taken) + 1) if (cell, plw, str(each)) not in taken)
        taken.add((cell, plw, str(seed)))
        after = _width(information, slopes, freedom + number) if before else None
        found.append(
            NextRun(
                plw=plw,
                seed=seed,
                cell=cell,
                learning_rate=rate,
                width_left=after / before if after and before else None,
            )
        )
    return found


def _whole(trials: Trials) -> tuple[float, float]:
    low, high = trials.w_p_range
    # Hardly anything tried: the whole of the space is open.
    return (low, high) if high > low else (0.0, 1.0)


def _candidates(trials: Trials, num_terms: int) -> list[tuple[Cell, float, Array]]:
    """Each cell with each weight worth a trial, and its row of terms (P).

    Learning rate and seed are at their mean: what a new seed is worth by itself is not known.
    """
    low, high = trials.w_p_range
    tried = sorted(set(trials.plw.tolist()))
    is_narrow = len(tried) < 3
    ladder = [plw for plw in LADDER if is_narrow or low <= w_p_of(plw) <= high]
    plws = sorted(
        {
            *tried,
            *(plw for plw in ladder if min(abs(w_p_of(plw) - w_p_of(one)) for one in tried) > 0.03),
        }
    )
    num_cells = len(trials.cells)
    curves = num_cells if trials.has_cell_curves else 1
    found = []
    for number, cell in enumerate(trials.cells):
        for plw in plws:
            at = w_p_of(plw)
            share = np.eye(num_cells)[number] if curves > 1 else np.ones(1)
            curve = np.concatenate([np.eye(num_cells)[number], share * at, share * at**2])
            found.append((cell, plw, np.pad(curve, (0, num_terms - len(curve)))))
    return found


def _slopes(trials: Trials, pieces: Sequence[tuple[float, float]], num_terms: int) -> Array:
    """(places, P): the mean curve's slope at places spread over the pieces."""
    widths = np.array([end - start for start, end in pieces]) + 1e-3
    counts = np.maximum(1, np.round(_NUM_PLACES * widths / widths.sum())).astype(int)
    places = np.concatenate(
        [np.linspace(start, end, count) for (start, end), count in zip(pieces, counts, strict=True)]
    )
    curves = len(trials.cells) if trials.has_cell_curves else 1
    first = len(trials.cells)
    rows = np.zeros((len(places), num_terms))
    rows[:, first : first + curves] = 1 / curves
    rows[:, first + curves : first + 2 * curves] = 2 * places[:, None] / curves
    return rows


def _variance(information: Array, slopes: Array) -> float:
    inverse = np.linalg.inv(information + _RIDGE * np.eye(len(information)))
    return float(np.einsum("kp,pq,kq->", slopes, inverse, slopes) / len(slopes))


def _width(information: Array, slopes: Array, freedom: float) -> float:
    return float(special.stdtrit(freedom, 0.975) * _variance(information, slopes) ** 0.5)
