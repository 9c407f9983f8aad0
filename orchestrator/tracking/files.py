"""What of a sweep's files MLflow is told, and what of it MLflow has been told already."""

import json
import logging
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evals.results.scores import ScoreCard
from orchestrator.foundation.redaction import redact
from orchestrator.record.folder import SweepFolder, TrialRecord
from orchestrator.record.reader import Version
from orchestrator.statistics.aggregates import with_aggregates
from trainers.foundation.files import read_json, write_json

logger = logging.getLogger(__name__)

# Older servers refuse longer ones; the artifact settings.yaml holds every value in full.
MAX_PARAM_CHARS = 500
LOG_TAIL_BYTES = 64 * 1024
SUMMARY_FIELDS = (
    "train_seconds",
    "eval_seconds",
    "final_completion_loss",
    "final_prompt_loss",
    "loss_rsd",
    "distance",
)
# What is added to a score's name for its interval and standard error.
OF_INTERVAL = ("_ci_low", "_ci_high", "_standard_error")
NOT_METRICS = frozenset({"step", "time", "total_steps"})


class RunState(BaseModel):
    """What MLflow already has of one run: a trial's, or the sweep's own for the trial None.

    `files` maps artifacts to the digest of their content; `versions` are those of the trial's
    files when all of them had been posted.
    """

    model_config = ConfigDict(extra="forbid")

    trial_id: str | None
    run_id: str
    has_params: bool = False
    last_step: int = -1
    last_system_step: int = -1
    state: str | None = None
    files: dict[str, str] = {}
    versions: tuple[Version, ...] | None = None


def read_state(folder: SweepFolder, trial_id: str | None, run_id: str) -> RunState:
    """What MLflow has of the run: nothing if the file is about another run, or cannot be read."""
    path = _state_path(folder, trial_id)
    if path.exists():
        try:
            state = RunState.model_validate(read_json(path))
        except ValueError:
            logger.warning("%s is damaged: posting it all again", path)
        else:
            if state.run_id == run_id:
                return state
    return RunState(trial_id=trial_id, run_id=run_id)


def write_state(folder: SweepFolder, state: RunState) -> None:
    """Write `tracking_state.json`, in one step."""
    write_json(_state_path(folder, state.trial_id), state.model_dump(mode="json"))


def _state_path(folder: SweepFolder, trial_id: str | None) -> Path:
    # One file for each run: one for all would be written anew, whole, for each step of each trial.
    return (folder.root if trial_id is None else folder.trial(trial_id)) / "tracking_state.json"


def score_metrics(card: ScoreCard, prefix: str = "") -> dict[str, float]:
    """Each score with its interval and standard error as metrics; what is None is left out."""
    values = {
        f"{prefix}{score.name}{suffix}": value
        for score in card.scores
        for suffix, value in (
            ("", score.value),
            *zip(OF_INTERVAL, (score.ci_low, score.ci_high, score.standard_error), strict=True),
        )
    }
    return {name: value for name, value in values.items() if value is not None}


def trial_scores(folder: SweepFolder, trial: TrialRecord) -> tuple[dict[str, float], int]:
    """All that a finished trial is compared by, and when it was scored in ms; nothing before."""
    card = folder.read_scores(trial.id) if trial.state == "done" else None
    if card is None:
        return {}, 0
    summary = {name: getattr(trial, name) for name in SUMMARY_FIELDS}
    values = score_metrics(with_aggregates(card, folder.read_base_scores(trial.base)))
    values |= {name: value for name, value in summary.items() if value is not None}
    return values, written_at(folder.trial(trial.id) / "scores.json")


def param_text(value: object) -> str:
    """A setting as MLflow shows it: text as it is, the rest as JSON, cut to what it takes."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_PARAM_CHARS else f"{text[: MAX_PARAM_CHARS - 3]}..."


def metric_lines(path: Path) -> Iterator[tuple[int, int, dict[str, float]]]:
    """(step, time in ms, metrics) of each whole line; the trainer may be writing the last one."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            return
        try:
            content = json.loads(line)
            step, time_ms = int(content["step"]), int(content["time"] * 1000)
        except (ValueError, KeyError, TypeError):
            logger.warning("not a metrics line in %s: %s", path, line.strip()[:200])
            continue
        yield (
            step,
            time_ms,
            {
                key: float(value)
                for key, value in content.items()
                if key not in NOT_METRICS
                and isinstance(value, int | float)
                and not isinstance(value, bool)
                and math.isfinite(value)
            },
        )


def tail(path: Path) -> str:
    """The last 64 KiB of a log."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
        return file.read().decode("utf-8", errors="replace")


def milliseconds(timestamp: str | None) -> int:
    """Milliseconds since 1970 of an ISO 8601 time; 0 for None, the same at each post."""
    return int(datetime.fromisoformat(timestamp).timestamp() * 1000) if timestamp else 0


def first_line(error: BaseException) -> str:
    """The first line of what went wrong, without passwords."""
    lines = str(redact(str(error))).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def written_at(path: Path) -> int:
    """When the file was written, in ms: scores that are measured again come after the old ones."""
    return int(path.stat().st_mtime * 1000)
