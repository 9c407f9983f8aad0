"""Read what a job's process has written since the last look: events, steps, finished trials."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.record.folder import SweepFolder
from orchestrator.record.reader import SweepReader
from orchestrator.serve.paths import JobFolder
from orchestrator.serve.records import EventRecord

# A longer run records every n-th step only.
_MAX_STEP_EVENTS = 1000


class JobProgress:
    """The progress of one job. It starts from nothing: the store keeps each event once."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._events = _Tail(folder.events)
        self._metrics = _Tail(folder.metrics)
        self._sweep: SweepReader | None = None
        self._ended_trials: set[str] = set()
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] = (0, 0.0)
        self.total_steps: int | None = None

    @property
    def last_step(self) -> int:
        return self._last[0]

    def new_events(self) -> list[EventRecord]:
        """Return the events since the last call."""
        events = [EventRecord.model_validate(row) for row in self._events.rows()]
        events += self._trial_events()
        events += [event for row in self._metrics.rows() for event in self._step_events(row)]
        return sorted(events, key=lambda event: event.created_at)

    def estimated_finish(self) -> int | None:
        """Return the Unix time at which training should end; None without two steps."""
        if self._first is None or self.total_steps is None:
            return None
        steps, seconds = self._last[0] - self._first[0], self._last[1] - self._first[1]
        if steps <= 0:
            return None
        return int(self._last[1] + seconds / steps * (self.total_steps - self._last[0]))

    def _step_events(self, row: dict[str, Any]) -> Iterator[EventRecord]:
        step, total = row["step"], row["total_steps"]
        self.total_steps = total
        self._first = self._first or (step, row["time"])
        self._last = (step, row["time"])
        if step % -(-total // _MAX_STEP_EVENTS) and step != total:
            return
        losses = {"train_completion_loss": row["completion_loss"]}
        losses["train_prompt_loss"] = row["prompt_loss"]
        yield EventRecord(
            key=f"step-{step}",
            created_at=int(row["time"]),
            type="metrics",
            message=f"Step {step}/{total}: training loss={row['loss']:.4f}",
            data={
                "step": step,
                "total_steps": total,
                "train_loss": row["loss"],
                **losses,
                "learning_rate": row["learning_rate"],
                "tokens_per_second": row["tokens_per_second"],
            },
        )

    def _trial_events(self) -> Iterator[EventRecord]:
        """Yield an event for each trial of the search that has ended."""
        if self._sweep is None:
            sweep = SweepFolder(self._folder.sweep)
            if not sweep.sweep_json.exists():
                return
            self._sweep = SweepReader(sweep)
        self._sweep.refresh()
        trials = self._sweep.statuses()
        for trial in trials:
            if trial.state not in ("done", "failed", "stopped") or trial.id in self._ended_trials:
                continue
            self._ended_trials.add(trial.id)
            loss = trial.heldout_loss
            shown = f", held-out loss {loss:.4f}" if loss is not None else ""
            yield EventRecord(
                key=f"trial-{trial.id}-{trial.state}",
                created_at=int(time.time()),
                level="warn" if trial.state == "failed" else "info",
                message=f"Sweep: {trial.trial} {trial.state}{shown} ({len(self._ended_trials)} of"
                f" {len(trials)} trials)" + (f": {trial.error}" if trial.error else ""),
                data={"trial": trial.id, "state": trial.state, "heldout_loss": loss},
            )


class _Tail:
    """The complete lines that a JSON Lines file has gained since the last call.

    A resumed run may replace the file; then all of its lines are new.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode, self._offset = 0, 0

    def rows(self) -> Iterator[dict[str, Any]]:
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            stat = self._path.stat()
            if stat.st_ino != self._inode or stat.st_size < self._offset:
                self._inode, self._offset = stat.st_ino, 0
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                try:
                    row = json.loads(line)
                except ValueError:  # A killed process left half a line before the next one.
                    continue
                yield row
