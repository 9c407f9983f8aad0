"""One number for several benchmarks: a mean for each group, and one over all of them.

Nothing here looks at other trials, so a trial that is added never changes an aggregate that was
there before. docs/method.md says what is taken together, and why so.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple, get_args

from evals.config import Group
from evals.results.scores import Score, ScoreCard

GROUPS: tuple[Group, ...] = get_args(Group)
RELATIVE = "aggregate_relative"
POINTS = "points"
LOG_ODDS = "log odds above the untuned model's"
TOP = 100.0
Z_95 = NormalDist().inv_cdf(0.975)


class Measured(NamedTuple):
    """A benchmark's score in points from 0 to 100, more being better, and its standard error."""

    points: float
    standard_error: float | None
    num_items: int


class _Scale(NamedTuple):
    """How a unit becomes points, and what the slope of that is at a value."""

    points: Callable[[float], float]
    slope: Callable[[float], float]


_SHARE = _Scale(lambda value: TOP * value, lambda _: TOP)
_PERCENT = _Scale(lambda value: value, lambda _: 1.0)
# Edits per hundred reference words have no upper end: a model that rambles reaches 800. As the
# reference's share of reference and edits they lie in (0, 100] and no single one rules a mean.
_EDITS = _Scale(
    lambda value: TOP / (1 + value / TOP), lambda value: -1 / (1 + max(value, 0.0) / TOP) ** 2
)
_SCALES = {
    "share": _SHARE,
    "rouge-l": _SHARE,
    "bleu": _PERCENT,
    "chrf": _PERCENT,
    "chrf++": _PERCENT,
    "ter": _EDITS,
}


def aggregate_name(group: Group) -> str:
    """The name of the mean of a group's benchmarks."""
    return f"aggregate_{group}"


def with_aggregates(card: ScoreCard, untuned: ScoreCard | None) -> ScoreCard:
    """`card` with its aggregates behind its scores.

    Args:
        untuned: the scores of the same base's model before any training; None leaves out the
            relative aggregate.
    """
    groups = [(aggregate_name(group), _of_group(card, group)) for group in GROUPS]
    found = [_mean(name, parts, POINTS) for name, parts in groups if parts]
    relative = _relative(card, untuned) if untuned is not None else []
    if relative:
        found.append(_mean(RELATIVE, relative, LOG_ODDS))
    return card.model_copy(update={"scores": [*card.scores, *found]})


def is_aggregate(score: Score) -> bool:
    """Whether `score` is one of those that are made here."""
    return score.group is None and score.name in (RELATIVE, *map(aggregate_name, GROUPS))


def _of_group(card: ScoreCard, group: Group) -> list[Measured]:
    found = (in_points(score) for score in card.scores if score.group == group)
    return [measured for measured in found if measured is not None]


def _relative(card: ScoreCard, untuned: ScoreCard) -> list[Measured]:
    """Log odds of each benchmark above those of the untuned model; none if one is missing.

    A mean over some of the benchmarks would not compare with one over all of them.
    """
    own = card.by_name()
    found = []
    for reference in untuned.scores:
        before = in_points(reference)
        if reference.group is None or before is None:
            continue
        after = in_points(own[reference.name]) if reference.name in own else None
        if after is None:
            return []
        one, other = _log_odds(after), _log_odds(before)
        errors = (one.standard_error, other.standard_error)
        known = [error for error in errors if error is not None]
        # The same items answer for both models, so that this is more than the error is.
        error = math.hypot(*known) if len(known) == len(errors) else None
        found.append(Measured(one.points - other.points, error, after.num_items))
    return found


def in_points(score: Score) -> Measured | None:
    """The score as points; None for a unit that has no known ends, such as nats."""
    scale = next((_SCALES[word] for word in _SCALES if word in score.unit.lower().split()), None)
    if scale is None:
        return None
    error = _standard_error(score)
    points = scale.points(score.value)
    if scale is not _EDITS and not score.higher_is_better:
        points = TOP - points
    if error is not None:
        error *= abs(scale.slope(score.value))
    return Measured(points, error, score.num_items)


def _standard_error(score: Score) -> float | None:
    """That of the score; of items that were all alike, what their interval allows for."""
    if score.standard_error is not None:
        return score.standard_error
    if score.ci_low is None or score.ci_high is None:
        return None
    return (score.ci_high - score.ci_low) / (2 * Z_95)


def _log_odds(measured: Measured) -> Measured:
    """ln p / (1 - p), where half an item of each kind keeps 0 and 100 points finite.

    Source: Haldane 1956, The estimation and significance of the logarithm of a ratio of
    frequencies; the error by the delta method.
    """
    n = measured.num_items
    p = (measured.points / TOP * n + 0.5) / (n + 1)
    error = measured.standard_error
    if error is not None:
        error = error / TOP * n / (n + 1) / (p * (1 - p))
    return Measured(math.log(p / (1 - p)), error, n)


def _mean(name: str, parts: Sequence[Measured], unit: str) -> Score:
    value = math.fsum(part.points for part in parts) / len(parts)
    known = [part.standard_error for part in parts if part.standard_error is not None]
    # Benchmarks have no items in common. One without an error leaves that of the mean unknown.
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
