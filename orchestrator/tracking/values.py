"""Convert a sweep's records to MLflow metrics, params, texts and times."""

import json
import logging
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from evals.results.scores import ScoreCard
from orchestrator.foundation.redaction import redact
from orchestrator.record.folder import SweepFolder, TrialRecord
from orchestrator.statistics.aggregates import add_aggregates
from orchestrator.tracking.metric_names import (
    INTERVAL_SUFFIXES,
    TOTALS,
    mlflow_names,
    step_metric,
    with_intervals,
)

logger = logging.getLogger(__name__)

# Older servers reject longer params; the artifact settings.yaml contains all values in full.
MAX_PARAM_CHARS = 500
LOG_TAIL_BYTES = 64 * 1024
NOT_METRICS = frozenset({"step", "time", "total_steps"})


def score_metrics(card: ScoreCard, prefix: str = "eval") -> dict[str, float]:
    """Return each score with its interval and standard error as metrics, without None values."""
    added_chars = len(f"interval/{prefix}_") + max(map(len, INTERVAL_SUFFIXES))
    names = mlflow_names((score.name for score in card.scores), added_chars=added_chars)
    found: dict[str, float] = {}
    for score in card.scores:
        bounds = (score.ci_low, score.ci_high, score.standard_error)
        named = dict(zip(INTERVAL_SUFFIXES, bounds, strict=True))
        found |= with_intervals(prefix, names[score.name], score.value, named)
    return found


def trial_scores(folder: SweepFolder, trial: TrialRecord) -> tuple[dict[str, float], int]:
    """Return the scores and totals of a finished trial and their time in ms.

    Returns ({}, 0) for a trial that is not finished.
    """
    card = folder.read_scores(trial.id) if trial.state == "done" else None
    if card is None:
        return {}, 0
    totals = {name: getattr(trial, field) for field, name in TOTALS.items()}
    values = score_metrics(add_aggregates(card, folder.read_baseline_scores(trial.base)))
    values |= {name: value for name, value in totals.items() if value is not None}
    return values, modified_ms(folder.trial(trial.id) / "scores.json")


def param_text(value: object) -> str:
    """Return a setting as an MLflow param: strings as they are, other values as JSON, truncated."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_PARAM_CHARS else f"{text[: MAX_PARAM_CHARS - 3]}..."


class MetricLine(NamedTuple):
    """A line of a metrics file; `end` is the byte offset after it."""

    step: int
    time_ms: int
    metrics: dict[str, float]
    end: int


def metric_lines(path: Path, start: int = 0) -> Iterator[MetricLine]:
    """Yield each complete line of a metrics file from the byte offset `start` on.

    A last line without a newline is skipped, because the trainer may still be writing it.
    """
    if not path.exists():
        return
    end = start
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            end += len(line)
            if not line.endswith(b"\n"):
                return
            try:
                content = json.loads(line)
                step, time_ms = int(content["step"]), int(content["time"] * 1000)
            except (ValueError, KeyError, TypeError):
                text = line.decode("utf-8", errors="replace").strip()
                logger.warning("not a metrics line in %s: %s", path, text[:200])
                continue
            metrics = {
                step_metric(key): float(value)
                for key, value in content.items()
                if key not in NOT_METRICS
                and isinstance(value, int | float)
                and not isinstance(value, bool)
                and math.isfinite(value)
            }
            yield MetricLine(step, time_ms, metrics, end)


def log_tail(path: Path) -> str:
    """Return the last 64 KiB of a log."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
        return file.read().decode("utf-8", errors="replace")


def milliseconds(timestamp: str | None) -> int:
    """Convert an ISO 8601 time to milliseconds since 1970; None becomes 0."""
    return int(datetime.fromisoformat(timestamp).timestamp() * 1000) if timestamp else 0


def modified_ms(path: Path) -> int:
    """Return the modification time in ms, so that newer scores of a trial have a later time."""
    return int(path.stat().st_mtime * 1000)


def error_summary(error: BaseException) -> str:
    """Return the first line of an error message without passwords."""
    lines = str(redact(str(error))).strip().splitlines()
    return lines[0] if lines else type(error).__name__
