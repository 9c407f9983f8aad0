"""A sweep's records as the table that the statistics take."""

from collections.abc import Collection, Mapping, Sequence

from evals.scores import Score, ScoreCard
from orchestrator.bases import base_labels
from orchestrator.record import SweepRecord, TrialRecord
from orchestrator.statistics.table import ScoreRow

_PERCENT = 100.0
# These have columns of their own; what else was searched makes another condition.
_OWN_COLUMNS = ("loss.prompt_loss_weight", "optimizer.learning_rate", "seed")


def benchmark_rows(
    sweep: SweepRecord, trials: Sequence[TrialRecord], cards: Mapping[str, ScoreCard]
) -> list[ScoreRow]:
    """The benchmark scores of the trials that are done and have a card, as shares, higher better.

    Each score is a benchmark of its group. Trials of one base under the same settings, apart from
    PLW, learning rate and seed, are a cell.
    """
    return _rows(sweep, trials, cards, losses=False)


def loss_rows(
    sweep: SweepRecord, trials: Sequence[TrialRecord], cards: Mapping[str, ScoreCard]
) -> list[ScoreRow]:
    """The held-out losses of completions, in nats per token; the prompt's select nothing."""
    return _rows(sweep, trials, cards, losses=True)


def _rows(
    sweep: SweepRecord,
    trials: Sequence[TrialRecord],
    cards: Mapping[str, ScoreCard],
    *,
    losses: bool,
) -> list[ScoreRow]:
    labels = base_labels(sweep.bases)
    scored = [trial for trial in trials if trial.state == "done" and trial.id in cards]
    varying = {
        base: _varying([trial for trial in scored if trial.base == base])
        for base in {trial.base for trial in scored}
    }
    rows = []
    for trial in scored:
        for score in cards[trial.id].scores:
            is_loss = score.group is None
            if is_loss == losses and (not is_loss or "completion" in score.name):
                label = labels.get(trial.base, trial.base)
                rows.append(_row(trial, score, label, varying[trial.base]))
    return rows


def _varying(trials: Sequence[TrialRecord]) -> list[str]:
    """The searched settings, without those of own columns, that differ within a base."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        for key, value in trial.searched.items():
            values.setdefault(key, set()).add(str(value))
    return sorted(
        key for key, found in values.items() if len(found) > 1 and key not in _OWN_COLUMNS
    )


def _row(trial: TrialRecord, score: Score, label: str, varying: Collection[str]) -> ScoreRow:
    scale = 1.0 if score.group is None or "share" in score.unit else _PERCENT
    value = score.value / scale
    if score.group is not None and not score.higher_is_better:
        value = 1 - value
    error = score.standard_error
    settings = trial.settings
    return ScoreRow(
        benchmark=score.name,
        group=score.group or score.name,
        plw=trial.prompt_loss_weight,
        score=min(max(value, 0.0), 1.0) if score.group is not None else value,
        seed=str(settings["seed"]),
        trial=trial.id,
        model=label,
        condition=", ".join(f"{key} {trial.searched.get(key)}" for key in varying),
        standard_error=None if error is None else error / scale,
        num_items=score.num_items if "share" in score.unit else None,
        learning_rate=float(settings["optimizer"]["learning_rate"]),
    )
