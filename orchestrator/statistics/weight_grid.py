"""Prompt weight and completion weight together: free means of the pairs that were tried.

Ordinary least squares on one number per trial, with seeds as blocks: scores and design columns are
centred by seed, which gives the estimates of a model with a column for each seed. Nothing is
assumed of the shape over the two weights. F tests compare nested models, always against the noise
of the model of free means: the levels of one weight on top of those of the other (type II sums of
squares), their interaction, and free means of the pairs against free means of the ratios
prompt / completion. Noise is taken to be equal in all pairs.

Source: Searle 1971, Linear Models, on F tests of nested models; Hsu 1984 and 1996 on multiple
comparisons with the best (here with Holm's correction in place of Dunnett's quantile).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.spec.two_weights import ratio_of
from orchestrator.statistics.weight_models import (
    Comparison,
    Fit,
    compare,
    fit_means,
    has_blocks,
    one_hot,
)
from orchestrator.statistics.weight_trials import (
    MIN_FREEDOM,
    Pair,
    WeightTrial,
    check_trials,
    grid_notes,
    why_unmeasured,
)

Array = NDArray[np.float64]

LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class GridTest:
    """An F test of nested models; the numbers are None where there is none, for the `reason`.

    `name` is what the larger model has and the smaller has not. `adjusted_p_value` is Holm's over
    the tests of the grid.
    """

    name: str
    f: float | None = None
    freedom: int | None = None
    freedom_noise: int | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None
    reason: str | None = None

    @property
    def is_shown(self) -> bool:
        """Whether the effect is shown at 5% after correction."""
        return self.adjusted_p_value is not None and self.adjusted_p_value < LEVEL


@dataclass(frozen=True, kw_only=True)
class GridCell:
    """A pair of weights. Intervals are 95%, each by itself; None where noise is not measured.

    `ratio` is prompt / completion, None for completion weight 0. `mean` is adjusted to the average
    of the seeds. `difference` is from the reference pair, in the unit of the scores. `p_value`: of
    no other pair being better, one-sided, Holm's over the other pairs; `may_be_best` where it is
    5% or more.
    """

    prompt_weight: float
    completion_weight: float
    ratio: float | None
    num_trials: int
    mean: float
    mean_low: float | None
    mean_high: float | None
    difference: float
    difference_low: float | None
    difference_high: float | None
    p_value: float | None
    may_be_best: bool | None

    @property
    def pair(self) -> Pair:
        return (self.prompt_weight, self.completion_weight)


@dataclass(frozen=True, kw_only=True)
class WeightGrid:
    """What the scores of pairs of weights say.

    `reference` is the lowest prompt weight tried, with the highest completion weight tried beside
    it: (0, 1), completion-only training, where it was tried. `best` is the pair with the best mean.
    `gain`: of `best` over `reference`; its 95% interval holds for whichever pair is the best
    (Bonferroni over the other pairs). `equal_ratio_difference`: the largest difference between two
    pairs of equal ratio; `_high` what it is at most (95%, all such pairs together). `noise_sd` is
    that of a trial beside pair and seed, None where it is not measured, for the reason in `notes`.
    """

    cells: tuple[GridCell, ...]
    reference: Pair
    best: Pair
    gain: float
    gain_low: float | None
    gain_high: float | None
    tests: tuple[GridTest, ...]
    equal_ratio_difference: float | None
    equal_ratio_difference_high: float | None
    num_trials: int
    num_seeds: int
    seeds_are_blocks: bool
    noise_sd: float | None
    freedom_noise: int
    notes: tuple[str, ...]

    def cell(self, pair: Pair) -> GridCell:
        """The cell of a pair that was tried."""
        return next(cell for cell in self.cells if cell.pair == pair)

    def test(self, name: str) -> GridTest:
        """The test of that name."""
        return next(test for test in self.tests if test.name == name)


def fit_weight_grid(trials: Sequence[WeightTrial], *, higher_is_better: bool = True) -> WeightGrid:
    """The means of the pairs, what they depend on, and which of them may be the best.

    Raises:
        InputError: fewer than two pairs, weights outside [0, 1] or both 0, scores that are not
            finite, or two trials of one pair and seed; all problems at once.
    """
    check_trials(trials)
    pairs = sorted({(trial.prompt_weight, trial.completion_weight) for trial in trials})
    place = {pair: index for index, pair in enumerate(pairs)}
    cell = np.array([place[trial.prompt_weight, trial.completion_weight] for trial in trials])
    scores = np.array([trial.score for trial in trials], dtype=np.float64)
    seeds = sorted({trial.seed for trial in trials})
    seed = np.array([seeds.index(trial.seed) for trial in trials])
    is_blocked = has_blocks(one_hot(cell), seed, MIN_FREEDOM)
    block = seed if is_blocked else np.zeros_like(seed)
    fit = fit_means(scores, one_hot(cell), block)
    why = why_unmeasured(scores, fit)
    is_noisy = not why
    notes = (why,) if why else grid_notes(trials, fit, is_blocked=is_blocked)
    sign = 1.0 if higher_is_better else -1.0
    reference = place[_reference(pairs)]
    best = int(np.argmax(sign * fit.effects))
    tests = _tests(scores, np.array(pairs), cell, block, fit) if is_noisy else _no_tests(why)
    gain = _gain(fit, best, reference, is_noisy)
    equal, equal_most = _equal_ratios(pairs, fit, is_noisy)
    return WeightGrid(
        cells=tuple(_cells(pairs, cell, fit, reference, sign, is_noisy)),
        reference=pairs[reference],
        best=pairs[best],
        gain=gain[0],
        gain_low=gain[1],
        gain_high=gain[2],
        tests=tests,
        equal_ratio_difference=equal,
        equal_ratio_difference_high=equal_most,
        num_trials=len(trials),
        num_seeds=len(seeds),
        seeds_are_blocks=is_blocked,
        noise_sd=math.sqrt(fit.variance) if is_noisy else None,
        freedom_noise=fit.freedom,
        notes=notes,
    )


def _reference(pairs: Sequence[Pair]) -> Pair:
    lowest = min(prompt for prompt, _ in pairs)
    return max(pair for pair in pairs if pair[0] == lowest)


# By name: the smaller and the larger model, whose means are free for each level of these.
_TESTS: tuple[tuple[str, str, str, str], ...] = (
    ("any difference", "", "pair", "there is one pair"),
    ("prompt weight", "completion", "prompt+completion",
     "no two prompt weights were tried with the same completion weight"),
    ("completion weight", "prompt", "prompt+completion",
     "no two completion weights were tried with the same prompt weight"),
    ("interaction", "prompt+completion", "pair",
     "no two prompt weights were tried with the same two completion weights"),
    ("more than the ratio", "ratio", "pair", "no two pairs have the same ratio"),
)  # fmt: skip


def _no_tests(reason: str) -> tuple[GridTest, ...]:
    return tuple(GridTest(name=name, reason=reason) for name, *_ in _TESTS)


def _tests(
    scores: Array, pairs: Array, cell: NDArray[np.int64], block: NDArray[np.int64], fit: Fit
) -> tuple[GridTest, ...]:
    from statsmodels.stats.multitest import multipletests

    def levels(values: Sequence[object]) -> Array:
        names = list(dict.fromkeys(values))
        return one_hot(np.array([names.index(value) for value in values])[cell])

    prompt, completion = levels(list(pairs[:, 0])), levels(list(pairs[:, 1]))
    designs = {
        "": np.ones((len(scores), 1)),
        "prompt": prompt,
        "completion": completion,
        "prompt+completion": np.column_stack([prompt, completion]),
        "ratio": levels([ratio_of(*pair) for pair in pairs]),
        "pair": one_hot(cell),
    }
    fits = {name: fit_means(scores, design, block) for name, design in designs.items()}
    compared: list[tuple[str, Comparison | None, str]] = [
        (name, compare(fits[small], fits[large], fit), reason)
        for name, small, large, reason in _TESTS
    ]
    p_values = [found.p_value for _, found, _ in compared if found is not None]
    adjusted = iter(multipletests(p_values, method="holm")[1]) if p_values else iter(())
    return tuple(
        GridTest(name=name, reason=reason)
        if found is None
        else GridTest(
            name=name,
            f=found.f,
            freedom=found.freedom,
            freedom_noise=fit.freedom,
            p_value=found.p_value,
            adjusted_p_value=float(next(adjusted)),
        )
        for name, found, reason in compared
    )


def _cells(
    pairs: Sequence[Pair],
    cell: NDArray[np.int64],
    fit: Fit,
    reference: int,
    sign: float,
    is_noisy: bool,
) -> list[GridCell]:
    counts = np.bincount(cell, minlength=len(pairs))
    reach = fit.quantile(1 - LEVEL / 2) if is_noisy else None
    levels, level_errors = fit.levels()
    differences = fit.effects - fit.effects[reference]
    errors = fit.difference_errors()
    p_values = _better_p_values(fit, sign, errors) if is_noisy else None
    found = []
    for index, pair in enumerate(pairs):
        mean = float(levels[index])
        difference = float(differences[index])
        mean_half = None if reach is None else reach * float(level_errors[index])
        half = None if reach is None else reach * float(errors[index, reference])
        p_value = None if p_values is None else float(p_values[index])
        found.append(
            GridCell(
                prompt_weight=pair[0],
                completion_weight=pair[1],
                ratio=ratio_of(*pair),
                num_trials=int(counts[index]),
                mean=mean,
                mean_low=None if mean_half is None else mean - mean_half,
                mean_high=None if mean_half is None else mean + mean_half,
                difference=difference,
                difference_low=None if half is None else difference - half,
                difference_high=None if half is None else difference + half,
                p_value=p_value,
                may_be_best=None if p_value is None else p_value >= LEVEL,
            )
        )
    return found


def _better_p_values(fit: Fit, sign: float, errors: Array) -> Array:
    """By pair (K,): the smallest of the one-sided p-values of another being better, after Holm's.

    The truly best pair is left out of the set in at most 5% of studies: for that, one of K - 1
    others has to be significantly better than it.
    """
    from scipy.stats import t

    num_pairs = len(fit.effects)
    better = sign * (fit.effects[None, :] - fit.effects[:, None])
    # A pair is not compared with itself.
    scaled = better / np.where(np.eye(num_pairs, dtype=bool), np.inf, errors)
    smallest = t.sf(scaled.max(axis=1), fit.freedom)
    # Of the smallest p-value Holm's correction is Bonferroni's.
    return np.asarray(np.minimum(1.0, (num_pairs - 1) * smallest))


def _gain(
    fit: Fit, best: int, reference: int, is_noisy: bool
) -> tuple[float, float | None, float | None]:
    gain = float(fit.effects[best] - fit.effects[reference])
    if not is_noisy:
        return gain, None, None
    num_others = len(fit.effects) - 1
    reach = fit.quantile(1 - LEVEL / 2 / num_others)
    half = reach * float(fit.difference_errors()[best, reference])
    return gain, gain - half, gain + half


def _equal_ratios(
    pairs: Sequence[Pair], fit: Fit, is_noisy: bool
) -> tuple[float | None, float | None]:
    """The largest difference between pairs of equal ratio, and what it is at most (95%)."""
    named = [ratio_of(*pair) for pair in pairs]
    ratios = np.array([np.inf if ratio is None else ratio for ratio in named])
    first, second = np.nonzero(np.triu(ratios[:, None] == ratios[None, :], k=1))
    if not len(first):
        return None, None
    differences = np.abs(fit.effects[first] - fit.effects[second])
    if not is_noisy:
        return float(differences.max()), None
    errors = fit.difference_errors()[first, second]
    reach = fit.quantile(1 - LEVEL / 2 / len(first))
    return float(differences.max()), float((differences + reach * errors).max())
