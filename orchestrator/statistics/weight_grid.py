"""Analyse prompt and completion weight together: free means of the tried pairs.

The fit is ordinary least squares on one number per trial, with seeds as blocks: scores and design
columns are centred by seed, which equals a model with a column for each seed. No shape over the two
weights is assumed. Noise is assumed equal in all pairs.

F tests compare nested models, always against the noise of the model of free means. They test the
levels of one weight added to those of the other (type II sums of squares), their interaction, and
free means of the pairs against free means of the ratios prompt / completion.

Source: Searle 1971, Linear Models, on F tests of nested models; Hsu 1984 and 1996 on multiple
comparisons with the best (here with Holm's correction in place of Dunnett's quantile).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.spec.two_weights import ratio_of
from orchestrator.statistics.holm import holm
from orchestrator.statistics.weight_models import (
    Fit,
    FTest,
    can_block_by_seed,
    f_test,
    fit_means,
    one_hot,
)
from orchestrator.statistics.weight_trials import (
    MIN_DF,
    Pair,
    WeightTrial,
    check_trials,
    grid_notes,
    unmeasured_noise_reason,
)

Array = NDArray[np.float64]

LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class GridTest:
    """An F test of nested models.

    `name` is the term that only the larger model has. `adjusted_p_value` is corrected by Holm's
    method over the tests of the grid. If the test was not possible, the numbers are None and
    `reason` states why.
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
        """True if the effect is significant at 5% after correction."""
        return self.adjusted_p_value is not None and self.adjusted_p_value < LEVEL


@dataclass(frozen=True, kw_only=True)
class GridCell:
    """A pair of weights. Each 95% interval is for this pair alone; None if noise is not measured.

    `ratio` is prompt / completion, None for completion weight 0. `mean` is adjusted to the average
    of the seeds. `difference` is from the reference pair, in the unit of the scores. `p_value` is
    that of the hypothesis that no other pair is better (one-sided), Holm-corrected over the other
    pairs. `may_be_best` is true if `p_value` is at least 5%.
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
    """Results for pairs of weights.

    `reference` is the lowest tried prompt weight with the highest completion weight tried with it.
    This is (0, 1), completion-only training, if it was tried. `best` is the pair with the best
    mean. `gain` is the difference of `best` from `reference`; its 95% interval holds for any choice
    of the best pair (Bonferroni over the other pairs). `equal_ratio_difference` is the largest
    difference between two pairs of equal ratio, and `_high` its 95% upper bound, jointly over such
    pairs. `noise_sd` is the sd of a trial given its pair and seed; if it is None, `notes` contains
    the reason.
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
        """Return the cell of a tried pair."""
        return next(cell for cell in self.cells if cell.pair == pair)

    def test(self, name: str) -> GridTest:
        """Return the test named `name`."""
        return next(test for test in self.tests if test.name == name)


def fit_weight_grid(trials: Sequence[WeightTrial], *, higher_is_better: bool = True) -> WeightGrid:
    """Fit the means of the pairs, run the F tests, and find the pairs that may be best.

    Raises:
        InputError: there are fewer than two pairs, weights are outside [0, 1] or both 0, scores are
            not finite, or two trials have the same pair and seed; lists all problems.
    """
    check_trials(trials)
    pairs = sorted({(trial.prompt_weight, trial.completion_weight) for trial in trials})
    place = {pair: index for index, pair in enumerate(pairs)}
    cell = np.array([place[trial.prompt_weight, trial.completion_weight] for trial in trials])
    scores = np.array([trial.score for trial in trials], dtype=np.float64)
    seeds = sorted({trial.seed for trial in trials})
    seed = np.array([seeds.index(trial.seed) for trial in trials])
    is_blocked = can_block_by_seed(one_hot(cell), seed, MIN_DF)
    block = seed if is_blocked else np.zeros_like(seed)
    fit = fit_means(scores, one_hot(cell), block)
    no_noise_reason = unmeasured_noise_reason(scores, fit)
    has_noise = not no_noise_reason
    notes = (
        (no_noise_reason,) if no_noise_reason else grid_notes(trials, fit, is_blocked=is_blocked)
    )
    sign = 1.0 if higher_is_better else -1.0
    reference = place[_reference(pairs)]
    best = int(np.argmax(sign * fit.effects))
    tests = (
        _tests(scores, np.array(pairs), cell, block, fit)
        if has_noise
        else _no_tests(no_noise_reason)
    )
    gain = _gain(fit, best, reference, has_noise)
    equal, equal_high = _equal_ratios(pairs, fit, has_noise)
    return WeightGrid(
        cells=tuple(_cells(pairs, cell, fit, reference, sign, has_noise)),
        reference=pairs[reference],
        best=pairs[best],
        gain=gain[0],
        gain_low=gain[1],
        gain_high=gain[2],
        tests=tests,
        equal_ratio_difference=equal,
        equal_ratio_difference_high=equal_high,
        num_trials=len(trials),
        num_seeds=len(seeds),
        seeds_are_blocks=is_blocked,
        noise_sd=math.sqrt(fit.variance) if has_noise else None,
        freedom_noise=fit.df,
        notes=notes,
    )


def _reference(pairs: Sequence[Pair]) -> Pair:
    lowest = min(prompt for prompt, _ in pairs)
    return max(pair for pair in pairs if pair[0] == lowest)


# Test name; smaller and larger model, with free means for each level of these; reason if the test
# is not possible.
_TESTS: tuple[tuple[str, str, str, str], ...] = (
    ("any difference", "", "pair", "only one pair was tried"),
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
    compared: list[tuple[str, FTest | None, str]] = [
        (name, f_test(fits[small], fits[large], fit), reason)
        for name, small, large, reason in _TESTS
    ]
    p_values = [found.p_value for _, found, _ in compared if found is not None]
    adjusted = iter(holm(p_values))
    return tuple(
        GridTest(name=name, reason=reason)
        if found is None
        else GridTest(
            name=name,
            f=found.f,
            freedom=found.df,
            freedom_noise=fit.df,
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
    has_noise: bool,
) -> list[GridCell]:
    counts = np.bincount(cell, minlength=len(pairs))
    quantile = fit.t_quantile(1 - LEVEL / 2) if has_noise else None
    levels, level_errors = fit.levels()
    differences = fit.effects - fit.effects[reference]
    errors = fit.difference_errors()
    p_values = _better_p_values(fit, sign, errors) if has_noise else None
    found = []
    for index, pair in enumerate(pairs):
        mean = float(levels[index])
        difference = float(differences[index])
        mean_half = None if quantile is None else quantile * float(level_errors[index])
        half = None if quantile is None else quantile * float(errors[index, reference])
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
    """Return (K,): smallest one-sided p-value of another pair being better, Holm-corrected.

    The truly best pair is excluded from the set in at most 5% of studies, because one of K - 1
    others must be significantly better to exclude it.
    """
    from scipy.stats import t

    num_pairs = len(fit.effects)
    better = sign * (fit.effects[None, :] - fit.effects[:, None])
    # A pair is not compared with itself.
    scaled = better / np.where(np.eye(num_pairs, dtype=bool), np.inf, errors)
    smallest = t.sf(scaled.max(axis=1), fit.df)
    # For the smallest p-value Holm's correction equals Bonferroni's.
    return np.asarray(np.minimum(1.0, (num_pairs - 1) * smallest))


def _gain(
    fit: Fit, best: int, reference: int, has_noise: bool
) -> tuple[float, float | None, float | None]:
    gain = float(fit.effects[best] - fit.effects[reference])
    if not has_noise:
        return gain, None, None
    num_others = len(fit.effects) - 1
    quantile = fit.t_quantile(1 - LEVEL / 2 / num_others)
    half = quantile * float(fit.difference_errors()[best, reference])
    return gain, gain - half, gain + half


def _equal_ratios(
    pairs: Sequence[Pair], fit: Fit, has_noise: bool
) -> tuple[float | None, float | None]:
    """Return the largest difference between pairs of equal ratio and its 95% upper bound."""
    pair_ratios = [ratio_of(*pair) for pair in pairs]
    ratios = np.array([np.inf if ratio is None else ratio for ratio in pair_ratios])
    first, second = np.nonzero(np.triu(ratios[:, None] == ratios[None, :], k=1))
    if not len(first):
        return None, None
    differences = np.abs(fit.effects[first] - fit.effects[second])
    if not has_noise:
        return float(differences.max()), None
    errors = fit.difference_errors()[first, second]
    quantile = fit.t_quantile(1 - LEVEL / 2 / len(first))
    return float(differences.max()), float((differences + quantile * errors).max())
