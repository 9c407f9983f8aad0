"""Read a sweep again and again while it runs, at the cost of what has changed since."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.record.folder import State, SweepFolder, SweepRecord, TrialRecord
from orchestrator.spec.setting_fields import PLW

# Which of a trial's files change while it runs.
WATCHED_FILES = ("trial.json", "metrics.jsonl", "system.jsonl", "scores.json")
HELDOUT_LOSS = "heldout_completion_loss"
TAIL_BYTES = 8192

# Inode, time and size: a file that was put in another's place at the same moment is another one.
Version = tuple[int, int, int] | None


@dataclass(frozen=True, kw_only=True)
class TrialStatus:
    """A trial at a glance. Losses are in nats per token, times in seconds; None is not known.

    `completion_loss` and `prompt_loss` are those of the last logged step, on training data;
    `heldout_loss` is that of the completions of held-out data, once the trial is scored.
    `eval_seconds` are part of `seconds`; `is_scored_beside` says that the trial's own workers are,
    or were, free for others while it is scored.
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
    """The sweep in a folder and its trials at a glance; `refresh` reads only what has changed."""

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
        """Read what was written since the last refresh; returns the trials that it is about."""
        # Looked at before it is read: what is written in between is read again the next time.
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
        """Those trials, or all, that have a record, in the order of the plan."""
        wanted = self._sweep.trial_ids if trial_ids is None else trial_ids
        return [self._statuses[one] for one in wanted if one in self._statuses]


def trial_versions(folder: SweepFolder, trial_id: str) -> tuple[Version, ...]:
    """What changes whenever one of a trial's watched files is written."""
    root = folder.trial(trial_id)
    return tuple(file_version(f"{root}/{name}") for name in WATCHED_FILES)


def file_version(path: str | Path) -> Version:
    """What changes whenever a file is written; None while there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def last_metrics(path: Path) -> dict[str, Any]:
    """The last whole line of a metrics file; empty where there is none yet."""
    if not path.exists():
        return {}
    with path.open("rb") as file:
        # Lines are some 300 bytes, and a long run has many thousands.
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
    """A trial by its searched values, short enough for a table."""
    parts = []
    for dotted, value in searched.items():
        section, _, last = dotted.rpartition(".")
        # Of model.path and data.path the section says more.
        name = "PLW" if dotted == PLW else section if last == "path" else last
        parts.append(f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(parts)


def _status(folder: SweepFolder, record: TrialRecord) -> TrialStatus:
    metrics = last_metrics(folder.metrics(record.id))
    step = metrics.get("step", 0)
    remaining = None
    num_tokens, speed = metrics.get("num_tokens"), metrics.get("tokens_per_second")
    if record.state == "training" and num_tokens and speed and record.total_steps:
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
