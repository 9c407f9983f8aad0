"""Read a running sweep repeatedly; each refresh reads only the files that have changed."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.record.folder import State, SweepFolder, SweepRecord, TrialRecord
from orchestrator.spec.setting_fields import PLW

# Files of a trial that change while it runs.
WATCHED_FILES = ("trial.json", "metrics.jsonl", "system.jsonl", "scores.json")
HELDOUT_LOSS = "heldout_completion_loss"
TAIL_BYTES = 8192

# Inode, time and size: the inode distinguishes a replaced file with the same time.
Version = tuple[int, int, int] | None


@dataclass(frozen=True, kw_only=True)
class TrialStatus:
    """Status of a trial. Losses are in nats per token, times in seconds; None if unknown.

    `completion_loss` and `prompt_loss` are training losses of the last logged step; `heldout_loss`
    is the completion loss on held-out data, once the trial is scored. `tokens_per_second` is that
    of the last logged step during training, then the mean over the last attempt. `seconds` is the
    time of that attempt and includes `eval_seconds`. `is_scored_beside`: a scorer scores the trial,
    and its workers are free.
    """

    id: str
    trial: str
    searched: dict[str, Any]
    state: State
    note: str | None
    step: int
    total_steps: int | None
    completion_loss: float | None
    prompt_loss: float | None
    heldout_loss: float | None
    tokens_per_second: float | None
    remaining_s: float | None
    seconds: float | None
    eval_seconds: float | None
    is_scored_beside: bool
    ended_at: str | None
    error: str | None


class SweepReader:
    """The sweep in a folder and the statuses of its trials."""

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder
        self._version: Version = None
        self._versions: dict[str, tuple[Version, ...]] = {}
        self._statuses: dict[str, TrialStatus] = {}
        self._sweep = folder.read_sweep()

    @property
    def sweep(self) -> SweepRecord:
        """The sweep's record as of the last refresh."""
        return self._sweep

    def refresh(self) -> list[str]:
        """Read the files that changed since the last refresh; return the ids of changed trials."""
        # Read the version before the content, so that the next refresh detects a write in between.
        version = file_version(self.folder.sweep_json)
        if version != self._version:
            self._version, self._sweep = version, self.folder.read_sweep()
        changed = []
        for trial_id in self._sweep.trial_ids:
            versions = trial_versions(self.folder, trial_id)
            if self._versions.get(trial_id) == versions:
                continue
            self._versions[trial_id] = versions
            record = self.folder.read_trial(trial_id)
            if record is not None:
                self._statuses[trial_id] = _status(self.folder, record)
                changed.append(trial_id)
        return changed

    def statuses(self, trial_ids: Sequence[str] | None = None) -> list[TrialStatus]:
        """Return the statuses of these trials (None: all); omit trials without a record."""
        wanted = self._sweep.trial_ids if trial_ids is None else trial_ids
        return [self._statuses[one] for one in wanted if one in self._statuses]


def trial_versions(folder: SweepFolder, trial_id: str) -> tuple[Version, ...]:
    """Return a value that changes when one of a trial's watched files is written."""
    root = folder.trial(trial_id)
    return tuple(file_version(f"{root}/{name}") for name in WATCHED_FILES)


def file_version(path: str | Path) -> Version:
    """Return a value that changes when the file is written; None if it does not exist."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def last_metrics(path: Path) -> dict[str, Any]:
    """Return the content of a metrics file's last complete line; empty without such a line."""
    if not path.exists():
        return {}
    with path.open("rb") as file:
        # Read only the end: a line has about 300 bytes, a long run many thousands of lines.
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    for line in reversed(lines):
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            return content
    return {}


def label(searched: dict[str, Any]) -> str:
    """Return a short label of a trial from its searched values."""
    parts = []
    for dotted, value in searched.items():
        section, _, last = dotted.rpartition(".")
        # For model.path and data.path the section is the more useful name.
        name = "PLW" if dotted == PLW else section if last == "path" else last
        parts.append(f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(parts)


def _status(folder: SweepFolder, record: TrialRecord) -> TrialStatus:
    metrics = last_metrics(folder.metrics(record.id))
    step = metrics.get("step", 0)
    remaining = None
    num_tokens, speed = metrics.get("num_tokens"), metrics.get("tokens_per_second")
    if record.state != "training":
        speed = record.tokens_per_second or speed
    elif num_tokens and speed and record.total_steps:
        remaining = max(record.total_steps - step, 0) * num_tokens / speed
    seconds = None
    if record.train_seconds is not None:
        seconds = record.train_seconds + (record.eval_seconds or 0.0)
    card = folder.read_scores(record.id) if record.state == "done" else None
    heldout = card.by_name().get(HELDOUT_LOSS) if card else None
    return TrialStatus(
        id=record.id,
        trial=label(record.searched),
        searched=record.searched,
        state=record.state,
        note=record.note,
        step=step,
        total_steps=record.total_steps,
        completion_loss=metrics.get("completion_loss"),
        prompt_loss=metrics.get("prompt_loss"),
        heldout_loss=None if heldout is None else heldout.value,
        tokens_per_second=speed,
        remaining_s=remaining,
        seconds=seconds,
        eval_seconds=record.eval_seconds,
        is_scored_beside=record.is_scored_beside,
        ended_at=record.ended_at,
        error=record.error,
    )
