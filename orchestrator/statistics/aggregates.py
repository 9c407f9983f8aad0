"""Aggregate scores over benchmarks: one mean per group, and one mean over all benchmarks.

An aggregate depends on one trial only, so a new trial never changes existing aggregates.
docs/method.md lists what is averaged and why.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple, get_args

from evals.config import Group
from evals.results.scores import Score, ScoreCard

GROUPS: tuple[Group, ...] = get_args(Group)
RELATIVE_AGGREGATE = "aggregate_relative"
POINTS = "points"
LOG_ODDS = "log odds above the untuned model's"
MAX_POINTS = 100.0
Z_95 = NormalDist().inv_cdf(0.975)


class BenchmarkPoints(NamedTuple):
    """A benchmark's score in points (0 to 100, higher is better), with its standard error."""

    points: float
    standard_error: float | None
    num_items: int


class _Scale(NamedTuple):
    """Conversion of a unit to points, and the derivative of that conversion."""

    points: Callable[[Any], Any]
    slope: Callable[[float], float]


_SHARE = _Scale(lambda value: MAX_POINTS * value, lambda _: MAX_POINTS)
_PERCENT = _Scale(lambda value: value, lambda _: 1.0)
# TER has no upper bound: a model that rambles reaches 800. It is converted to the reference's share
# of reference plus edits, which is in (0, 100], so no single score dominates a mean.
_EDITS = _Scale(
    lambda value: MAX_POINTS / (1 + value / MAX_POINTS),
    lambda value: -1 / (1 + max(value, 0.0) / MAX_POINTS) ** 2,
)
_SCALES = {
    "share": _SHARE,
    "rouge-l": _SHARE,
    "bleu": _PERCENT,
    "chrf": _PERCENT,
    "chrf++": _PERCENT,
    "ter": _EDITS,
}


def group_aggregate_name(group: Group) -> str:
    """Return the name of the mean over a group's benchmarks."""
    return f"aggregate_{group}"


def add_aggregates(card: ScoreCard, untuned: ScoreCard | None) -> ScoreCard:
    """Return `card` with its aggregates appended to its scores.

    Args:
        untuned: scores of the base model before training. If None, the relative aggregate is left
            out.
    """
    groups = [(group_aggregate_name(group), _group_points(card, group)) for group in GROUPS]
    found = [_mean(name, parts, POINTS) for name, parts in groups if parts]
    relative = _relative_points(card, untuned) if untuned is not None else []
    if relative:
        found.append(_mean(RELATIVE_AGGREGATE, relative, LOG_ODDS))
    return card.model_copy(update={"scores": [*card.scores, *found]})


def is_aggregate(score: Score) -> bool:
    """Return whether `score` was made by `add_aggregates`."""
    return score.group is None and score.name in (
        RELATIVE_AGGREGATE,
        *map(group_aggregate_name, GROUPS),
    )


def _group_points(card: ScoreCard, group: Group) -> list[BenchmarkPoints]:
    found = (to_points(score) for score in card.scores if score.group == group)
    return [measured for measured in found if measured is not None]


def _relative_points(card: ScoreCard, untuned: ScoreCard) -> list[BenchmarkPoints]:
    """Return each benchmark's log odds minus those of the untuned model.

    The result is empty if a benchmark is missing, because a mean over some of the benchmarks is not
    comparable with a mean over all of them.
    """
    by_name = card.by_name()
    found = []
    for reference in untuned.scores:
        before = to_points(reference)
        if reference.group is None or before is None:
            continue
        after = to_points(by_name[reference.name]) if reference.name in by_name else None
        if after is None:
            return []
        one, other = _log_odds(after), _log_odds(before)
        errors = (one.standard_error, other.standard_error)
        known = [error for error in errors if error is not None]
        # Both models answer the same items, so this overestimates the error.
        error = math.hypot(*known) if len(known) == len(errors) else None
        found.append(BenchmarkPoints(one.points - other.points, error, after.num_items))
    return found


def to_points(score: Score) -> BenchmarkPoints | None:
    """Return the score in points; None for a unit without known bounds, such as nats."""
    scale, convert = _scale(score.unit), points_conversion(score)
    if scale is None or convert is None:
        return None
    error = _standard_error(score)
    if error is not None:
        error *= abs(scale.slope(score.value))
    return BenchmarkPoints(convert(score.value), error, score.num_items)


def points_conversion(score: Score) -> Callable[[Any], Any] | None:
    """Return the function from values of a score, one or an array, to points; None as above."""
    scale = _scale(score.unit)
    if scale is None or scale is _EDITS or score.higher_is_better:
        return None if scale is None else scale.points
    return lambda value: MAX_POINTS - scale.points(value)


def _scale(unit: str) -> _Scale | None:
    return next((_SCALES[word] for word in _SCALES if word in unit.lower().split()), None)


def _standard_error(score: Score) -> float | None:
    """Return the score's standard error, or the one implied by its interval.

    If all items have the same result, the score has an interval but no standard error.
    """
    if score.standard_error is not None:
        return score.standard_error
    if score.ci_low is None or score.ci_high is None:
        return None
    return (score.ci_high - score.ci_low) / (2 * Z_95)


def _log_odds(measured: BenchmarkPoints) -> BenchmarkPoints:
    """Return ln(p / (1 - p)), with half an item added to each outcome so that it is finite.

    Source: Haldane 1956, The estimation and significance of the logarithm of a ratio of
    frequencies. The error follows from the delta method.
    """
    n = measured.num_items
    p = (measured.points / MAX_POINTS * n + 0.5) / (n + 1)
    error = measured.standard_error
    if error is not None:
        error = error / MAX_POINTS * n / (n + 1) / (p * (1 - p))
    return BenchmarkPoints(math.log(p / (1 - p)), error, n)


def _mean(name: str, parts: Sequence[BenchmarkPoints], unit: str) -> Score:
    value = math.fsum(part.points for part in parts) / len(parts)
    known = [part.standard_error for part in parts if part.standard_error is not None]
    # Benchmarks share no items. If one has no error, the error of the mean is unknown.
    error = math.hypot(*known) / len(parts) if len(known) == len(parts) else None
    plural = "" if len(parts) == 1 else "s"
    return Score(
        name=name,
        group=None,
        value=value,
        standard_error=error,
        ci_low=None if error is None else value - Z_95 * error,
        ci_high=None if error is None else value + Z_95 * error,
        num_items=sum(part.num_items for part in parts),
        higher_is_better=True,
        unit=unit,
        interval_method=f"propagated from the items of {len(parts)} benchmark{plural}",
    )
