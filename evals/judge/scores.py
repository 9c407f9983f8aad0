"""Scores of judged pairs."""

from collections.abc import Sequence

from evals.judge.verdicts import Judgement
from evals.judge.win_rates import length_controlled_win_rate, win_rate
from evals.results.intervals import share
from evals.results.scores import Score


def judged_scores(name: str, judgements: Sequence[Judgement], *, seed: int) -> list[Score]:
    """The scores of a measure `name`; pairs without any readable verdict take no part.

    `<name>_win_rate`, the first, is the benchmark's score.
    `<name>_length_controlled_win_rate` is the same pairs seen without length, and
    `<name>_consistent_verdicts` says of the judge how often both orders agree: these two belong
    to no group, so that a group's mean counts the pairs once.
    """
    counted = [(item, value) for item in judgements if (value := item.value) is not None]
    scores: list[Score] = []
    if not counted:
        return scores
    values = [value for _, value in counted]
    scores.append(
        win_rate(values, seed).as_score(
            f"{name}_win_rate",
            group="long_generation",
            higher_is_better=True,
            unit="share of pairs",
        )
    )
    controlled = length_controlled_win_rate(
        values,
        [len(item.pair.candidate) for item, _ in counted],
        [len(item.pair.reference) for item, _ in counted],
        seed,
    )
    if controlled is not None:
        scores.append(
            controlled.as_score(
                f"{name}_length_controlled_win_rate",
                group=None,
                higher_is_better=True,
                unit="share of pairs",
            )
        )
    consistent = [found for item in judgements if (found := item.is_consistent) is not None]
    if consistent:
        scores.append(
            share(consistent).as_score(
                f"{name}_consistent_verdicts",
                group=None,
                higher_is_better=True,
                unit="share of pairs",
            )
        )
    return scores
