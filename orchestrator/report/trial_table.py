"""Build the rows of a report's table of trials, and its list of failures."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evals.results.scores import Score, ScoreCard
from orchestrator.analysis.findings import format_value
from orchestrator.analysis.observations import other_settings
from orchestrator.analysis.sweep_findings import GROUPS
from orchestrator.foundation.redaction import redact
from orchestrator.record.folder import TrialRecord
from orchestrator.statistics.aggregates import group_aggregate_name
from orchestrator.statistics.messages import capitalize
from trainers.data.roles import PROMPT_ROLES

LOSSES_OF_ROLES = tuple(f"heldout_{role.name.lower()}_loss" for role in PROMPT_ROLES)
MAX_ERROR_CHARS = 2000
SECONDS_PER_MINUTE = 60
MINUTES_PER_HOUR = 60


def score_columns(cards: Iterable[ScoreCard | None]) -> dict[str, Score]:
    """Return one score of each measure, by name: the groups' scores first, then losses.

    Uninformative columns are left out: losses of the roles within a prompt, and means over a single
    benchmark.
    """
    columns: dict[str, Score] = {}
    for card in cards:
        for score in card.scores if card else ():
            columns.setdefault(score.name, score)
    sizes = Counter(score.group for score in columns.values())
    single = [group_aggregate_name(group) for group in GROUPS if sizes[group] == 1]
    for name in (*LOSSES_OF_ROLES, *single):
        columns.pop(name, None)
    places = [*GROUPS, None]
    return dict(sorted(columns.items(), key=lambda item: places.index(item[1].group)))


def column_title(score: Score) -> str:
    """Return text such as `Held-out choice (share of items)`; a title may contain its unit."""
    name = score.name
    if score.group is not None and not name.startswith(score.group):
        name = f"{score.group} {name}"
    title = (
        name.replace("_", " ")
        .replace("chrf", "chrF")
        .replace("heldout.", "heldout ")
        .replace("heldout", "held-out")
    )
    title = capitalize(title.replace("bleu", "BLEU"))
    return title if score.unit.lower() in title.lower() else f"{title} ({score.unit})"


def trial_rows(
    cards_by_trial: Sequence[tuple[TrialRecord, ScoreCard | None]], columns: Mapping[str, Score]
) -> list[dict[str, Any]]:
    """Return a row for each trial, ordered by PLW."""
    return [
        {
            "plw": f"{trial.prompt_loss_weight:g}",
            "id": trial.id,
            "searched": searched_text(trial),
            "seed": str(trial.settings.get("seed", "-")),
            "state": _state(trial),
            "completion_loss": format_value(trial.final_completion_loss, "nats"),
            "prompt_loss": format_value(trial.final_prompt_loss, "nats"),
            "scores": _score_cells(card, columns),
            "tokens_per_second": _count(trial.tokens_per_second),
            "time": _time(trial),
        }
        for trial, card in sorted(cards_by_trial, key=lambda pair: pair[0].prompt_loss_weight)
    ]


def untuned_rows(
    labels: Mapping[str, str],
    untuned: Mapping[str, ScoreCard | None],
    columns: Mapping[str, Score],
) -> list[dict[str, Any]]:
    """Return a row for each base's untuned model, labelled if there are several bases."""
    return [
        {
            "plw": "untuned",
            "id": key if labels[key] else "",
            "searched": labels[key],
            "seed": "",
            "state": "scored" if card else "not scored",
            "completion_loss": "-",
            "prompt_loss": "-",
            "scores": _score_cells(card, columns),
            "tokens_per_second": "-",
            "time": _duration(None, card.seconds if card else None),
        }
        for key, card in untuned.items()
    ]


def _score_cells(card: ScoreCard | None, columns: Mapping[str, Score]) -> list[str]:
    by_name = card.by_name() if card else {}
    return [_score_cell(by_name.get(name)) for name in columns]


def _score_cell(score: Score | None) -> str:
    if score is None:
        return "-"
    value = format_value(score.value, score.unit)
    if score.ci_low is None or score.ci_high is None:
        return value
    low, high = (format_value(bound, score.unit) for bound in (score.ci_low, score.ci_high))
    return f"{value} ({low} to {high})"


def _name(trial: TrialRecord) -> str:
    searched = searched_text(trial)
    return f"PLW {trial.prompt_loss_weight:g}{f', {searched}' if searched else ''} ({trial.id})"


def searched_text(trial: TrialRecord) -> str:
    """Return the searched settings other than PLW and seed as text.

    Example: `optimizer.learning_rate 2e-05`.
    """
    return ", ".join(f"{key} {value}" for key, value in other_settings(trial).items())


def _state(trial: TrialRecord) -> str:
    return f"{trial.state}, {trial.attempts} attempts" if trial.attempts > 1 else trial.state


def failures(trials: Iterable[TrialRecord]) -> list[dict[str, str]]:
    """Return each distinct failure reason with the trials that failed for it."""
    by_reason: dict[str, list[str]] = {}
    for trial in trials:
        if trial.state == "failed":
            by_reason.setdefault(_shorten(trial.error), []).append(_name(trial))
    return [{"trial": ", ".join(names), "reason": why} for why, names in by_reason.items()]


def _shorten(error: str | None) -> str:
    if not error:
        return "no reason was recorded; see the trial's log.txt"
    text: str = redact(error.strip())
    # The last lines of a traceback name the error.
    return text if len(text) <= MAX_ERROR_CHARS else f"... {text[-MAX_ERROR_CHARS:]}"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _time(trial: TrialRecord) -> str:
    """Return the time of training and scoring, which is that of the last attempt."""
    last = _duration(trial.train_seconds, trial.eval_seconds)
    held_s = trial.busy_seconds + trial.scorer_seconds
    if trial.attempts < 2 or held_s == 0:
        return last
    total = _duration(held_s, None)
    if last == "-":
        return f"{total} in all attempts"
    return f"{last} (last attempt; {total} in all)"


def _duration(train_s: float | None, eval_s: float | None) -> str:
    if train_s is None and eval_s is None:
        return "-"
    seconds = round((train_s or 0.0) + (eval_s or 0.0))
    minutes, seconds = divmod(seconds, SECONDS_PER_MINUTE)
    hours, minutes = divmod(minutes, MINUTES_PER_HOUR)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
