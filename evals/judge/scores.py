"""Compute scores from judgements."""

from collections.abc import Sequence

from evals.judge.verdicts import Judgement
from evals.judge.win_rates import length_adjusted_win_rate, win_rate
from evals.results.intervals import Estimate, proportion
from evals.results.scores import Score


def judged_scores(name: str, judgements: Sequence[Judgement], *, seed: int) -> list[Score]:
    """Return the scores of the task `name`; pairs without a verdict are excluded.

    The first score, `<name>_win_rate`, is the benchmark's score.
    `<name>_length_adjusted_win_rate` removes the effect of length. `<name>_consistent_verdicts`
    is the share of pairs for which both orders agree. The latter two belong to no group, so that a
    group's mean counts the pairs only once.
    """
    known = [(item, value) for item in judgements if (value := item.value) is not None]
    if not known:
        return []
    values = [value for _, value in known]
    controlled = length_adjusted_win_rate(
        values,
        [len(item.pair.candidate) for item, _ in known],
        [len(item.pair.reference) for item, _ in known],
        seed,
    )
    consistent = [value for item in judgements if (value := item.is_consistent) is not None]
    estimates: dict[str, Estimate | None] = {
        "win_rate": win_rate(values, seed),
        "length_adjusted_win_rate": controlled,
        "consistent_verdicts": proportion(consistent) if consistent else None,
    }
    return [
        estimate.to_score(
            f"{name}_{metric}",
            group="long_generation" if metric == "win_rate" else None,
            higher_is_better=True,
            unit="share of pairs",
        )
        for metric, estimate in estimates.items()
        if estimate is not None
    ]


def truncated_share(name: str, is_truncated: Sequence[bool]) -> Score:
    """Return `<name>_truncated`: the share of outputs that were cut at the maximum length."""
    return proportion(is_truncated).to_score(
        f"{name}_truncated", group=None, higher_is_better=False, unit="share of outputs"
    )
