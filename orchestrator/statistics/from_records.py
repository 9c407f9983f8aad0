"""Convert a sweep's records to rows of scores."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from evals.results.scores import Score, ScoreCard
from orchestrator.foundation.redaction import flatten
from orchestrator.record.baselines import baseline_labels
from orchestrator.record.folder import SweepRecord, TrialRecord
from orchestrator.spec.setting_fields import INTERVAL_SETTINGS
from orchestrator.statistics.aggregates import points_conversion, to_points
from orchestrator.statistics.table import ScoreRow

HELDOUT_LOSS = "heldout_completion_loss"
_TOP = 100.0
# Settings with separate columns. A difference in any other setting is another condition.
_COLUMN_SETTINGS = ("loss.prompt_loss_weight", "optimizer.learning_rate", "seed")
# Constant within a base; the base's label states them.
_BASE_SETTINGS = ("model.path", "model.revision", "data.path", "data.split")


def benchmark_rows(
    sweep: SweepRecord, trials: Sequence[TrialRecord], cards: Mapping[str, ScoreCard]
) -> list[ScoreRow]:
    """Return the benchmark scores of finished trials with a card as rows.

    Scores are shares, higher is better. They are converted to points as in the aggregates;
    benchmarks whose unit cannot be converted are left out. Trials of one base that differ only in
    PLW, learning rate and seed form a cell.
    """
    return _rows(sweep, trials, cards, losses=False)


def loss_rows(
    sweep: SweepRecord, trials: Sequence[TrialRecord], cards: Mapping[str, ScoreCard]
) -> list[ScoreRow]:
    """Return the held-out completion losses of finished trials as rows, in nats per token.

    Prompt losses are never used for selection.
    """
    return _rows(sweep, trials, cards, losses=True)


def _rows(
    sweep: SweepRecord,
    trials: Sequence[TrialRecord],
    cards: Mapping[str, ScoreCard],
    *,
    losses: bool,
) -> list[ScoreRow]:
    labels = baseline_labels(sweep.bases)
    conditions = trial_conditions(
        [trial for trial in trials if trial.state == "done" and trial.id in cards]
    )
    rows = []
    for trial in trials:
        if trial.id not in conditions:
            continue
        label = labels.get(trial.base, trial.base)
        for score in cards[trial.id].scores:
            taken = _loss(score) if losses else _share(score)
            if taken is not None:
                rows.append(_row(trial, score, taken, label, conditions[trial.id]))
    return rows


def untuned_rows(base: str, card: ScoreCard, *, losses: bool) -> list[ScoreRow]:
    """Return the scores of an untuned model as rows; their weight is 0, a placeholder."""
    found = [(score, _loss(score) if losses else _share(score)) for score in card.scores]
    return [
        ScoreRow(
            benchmark=score.name,
            group=score.group or score.name,
            plw=0.0,
            score=taken.value,
            trial=base,
            standard_error=taken.standard_error,
            interval=taken.interval,
            num_items=score.num_items,
        )
        for score, taken in found
        if taken is not None
    ]


def trial_conditions(trials: Sequence[TrialRecord]) -> dict[str, str]:
    """Return, by trial, the settings that differ within its base.

    PLW, learning rate and seed are excluded. All other settings count, even if they were not
    searched, so that scores under two loss normalizations are never pooled.
    """
    found: dict[str, str] = {}
    for base in {trial.base for trial in trials}:
        settings = {trial.id: _settings(trial) for trial in trials if trial.base == base}
        varying = _varying(settings.values())
        for trial_id, values in settings.items():
            found[trial_id] = ", ".join(f"{key} {_text(values.get(key))}" for key in varying)
    return found


def _settings(trial: TrialRecord) -> dict[str, Any]:
    left_out = {*_COLUMN_SETTINGS, *_BASE_SETTINGS}
    return {
        key: value
        for key, value in flatten(trial.settings)
        if key not in left_out and key.partition(".")[0] not in INTERVAL_SETTINGS
    }


def _text(value: Any) -> str:
    """Return a setting as text, a whole number without `.0`, as in the report's tables."""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _varying(settings: Collection[Mapping[str, Any]]) -> list[str]:
    values: dict[str, set[str]] = {}
    for each in settings:
        for key, value in each.items():
            values.setdefault(key, set()).add(str(value))
    return sorted(key for key, found in values.items() if len(found) > 1)


class _Taken(NamedTuple):
    """A score on the scale of its row, with its standard error and 95% interval if known."""

    value: float
    standard_error: float | None
    interval: tuple[float, float] | None


def _share(score: Score) -> _Taken | None:
    """Return a benchmark's score in [0, 1]; None for other scores."""
    measured = to_points(score) if score.group is not None else None
    convert = points_conversion(score)
    if measured is None or convert is None or not math.isfinite(measured.points):
        return None
    error = measured.standard_error

    def to_share(points: float) -> float:
        return min(max(points / _TOP, 0.0), 1.0)

    return _Taken(
        to_share(measured.points),
        error / _TOP if error else None,
        _interval(score, lambda value: to_share(convert(value))),
    )


def _loss(score: Score) -> _Taken | None:
    if score.name != HELDOUT_LOSS or not math.isfinite(score.value):
        return None
    return _Taken(score.value, score.standard_error or None, _interval(score, float))


def _interval(score: Score, convert: Callable[[float], float]) -> tuple[float, float] | None:
    if score.ci_low is None or score.ci_high is None:
        return None
    ends = convert(score.ci_low), convert(score.ci_high)
    return min(ends), max(ends)


def _row(
    trial: TrialRecord,
    score: Score,
    taken: _Taken,
    label: str,
    condition: str,
) -> ScoreRow:
    settings = trial.settings
    return ScoreRow(
        benchmark=score.name,
        group=score.group or score.name,
        plw=trial.prompt_loss_weight,
        score=taken.value,
        seed=str(settings["seed"]),
        trial=trial.id,
        model=label,
        condition=condition,
        standard_error=taken.standard_error,
        interval=taken.interval,
        num_items=score.num_items if "share" in score.unit else None,
        learning_rate=float(settings["optimizer"]["learning_rate"]),
    )
