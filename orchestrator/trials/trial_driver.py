"""The Tune actor that drives one job after another on warm ranks.

A job is a trial, to be trained, scored or both, or a base, to be scored untuned. The driver alone
writes a trial's record while its job runs; the ranks write the files beside it.
"""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import ray
from ray import tune

from orchestrator.record.folder import BaseUsage, SweepFolder, TrialRecord
from orchestrator.record.stored_sweep import StoredSweep
from orchestrator.trials.mailbox import Progress
from orchestrator.trials.placement import why_waiting
from orchestrator.trials.ray_launch import RankSettings, WarmRanks
from orchestrator.trials.run_trial import (
    failed,
    interrupted,
    scored,
    started,
    train_result,
    trained,
)
from trainers.foundation.object_store import StorageError

POLL_S = 1.0
# A step may take long, and so may a checkpoint of a large model.
STOP_TIMEOUT_S = 600.0


class TrialDriver(tune.Trainable):  # type: ignore[misc]
    """One `step` is one held-out measurement of a trial, or its end.

    Tune keeps the actor between trials (`reuse_actors`), and the actor keeps its ranks. A trial
    that fails ends like any other for Tune: its record says what became of it.
    """

    def setup(self, config: dict[str, Any], ranks: RankSettings) -> None:
        self._settings = ranks
        self._folder = SweepFolder(Path(ranks.root))
        self._ranks: WarmRanks | None = None
        self._seen = Progress()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._discard()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if not self._is_given:
            self._give()
        assert self._ranks is not None
        num_seen = len(self._seen.heldout)
        while True:
            progress = self._ranks.wait(self._seen, POLL_S)
            self._follow(progress)
            self._seen = progress
            if progress.is_finished:
                self._is_running = False
                return {"done": True, "point": self._point}
            if len(progress.heldout) > num_seen:
                step, loss = progress.heldout[-1]
                return {
                    "done": False,
                    "point": self._point,
                    "step": step,
                    "total_steps": self._record().total_steps,
                    "heldout_completion_loss": loss,
                }
            if self._is_stop_requested() and self._end_early():
                return {"done": True, "point": self._point}

    def cleanup(self) -> None:
        if self._ranks is not None:
            self._discard()
            # Ranks in the middle of a trial end with Ray: their checkpoints are safe.
            self._ranks.close(wait=not self._is_running)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep: the ranks write their own checkpoints into the trial's folder."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load: a trial that runs again resumes from its own checkpoints."""

    def _begin(self, config: dict[str, Any]) -> None:
        self._kind, self._key = config["kind"], config["key"]
        self._point, self._untuned = config["point"], config["untuned"]
        self._is_given = self._is_running = self._is_asked_to_stop = False
        self._seen = Progress()

    def _give(self) -> None:
        if self._ranks is None:
            self._ranks = self._make_ranks()
        self._is_given = self._is_running = True
        self._begun_at: float | None = None
        if self._kind == "base":
            self._ranks.give(kind="base", key=self._key, base=self._key, **self._untuned)
            return
        record = self._record()
        # Scoring a trained trial is no further attempt at it.
        self._num_earlier = record.attempts - (record.state == "done")
        self._busy_earlier_s = record.busy_seconds
        if self._kind == "scoring":
            taken_over = {"note": None, "is_scored_beside": False}
            self._folder.write_trial(record.model_copy(update=taken_over))
        else:
            self._folder.write_trial(record.model_copy(update={"state": "waiting", "error": None}))
        self._ranks.give(
            kind=self._kind,
            key=record.id,
            base=record.base,
            settings=record.settings,
            model_path=str(self._folder.model(record.id)),
        )

    def _make_ranks(self) -> WarmRanks:
        return WarmRanks(f"ranks-{os.getpid()}", self._settings)

    def _is_stop_requested(self) -> bool:
        folder = self._folder
        return folder.stop_requested(None) or (
            self._kind != "base" and folder.stop_requested(self._key)
        )

    def _end_early(self) -> bool:
        """Ask the ranks for a checkpoint; True where the job can be left as it is.

        That is so when the whole sweep ends and the ranks do nothing that one could keep. If it
        goes on, they have to finish with this job before they can have another.
        """
        assert self._ranks is not None
        state = self._record().state if self._kind != "base" else None
        if self._folder.stop_requested(None) and state != "training":
            if state is not None:
                self._folder.write_trial(interrupted(self._record()))
            return True
        if state in ("waiting", "training") and not self._is_asked_to_stop:
            self._ranks.stop("checkpoint")
            self._is_asked_to_stop = True
        return False

    def _discard(self) -> None:
        """End the trial that is still running, because the scheduler has stopped it early."""
        if not self._is_running or self._ranks is None or self._folder.stop_requested(None):
            return
        self._ranks.stop("discard")
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while not self._seen.is_finished and time.monotonic() < deadline:
            self._seen = self._ranks.wait(self._seen, POLL_S)
        self._is_running = not self._seen.is_finished

    def _follow(self, progress: Progress) -> None:
        """Bring the job's record up to what is known of it."""
        if progress.outcome == "done":
            progress = self._with_records(progress)
        if progress.attempts > 0 and self._begun_at is None:
            self._begun_at = time.monotonic()
        busy_s = 0.0 if self._begun_at is None else time.monotonic() - self._begun_at
        if self._kind == "base":
            if progress.is_finished:
                self._folder.add_base_usage(self._key, BaseUsage(busy_seconds=busy_s))
            return
        record = self._record()
        num_attempts = 0 if self._kind == "scoring" else progress.attempts
        record = record.model_copy(
            update={
                "attempts": self._num_earlier + num_attempts,
                "busy_seconds": self._busy_earlier_s + busy_s,
            }
        )
        if progress.is_finished:
            self._folder.write_trial(self._ended(record, progress))
        elif self._kind == "scoring":
            return
        elif progress.attempts == 0:
            self._note_waiting(record)
        elif self._kind == "trial" and self._is_past_training(record, progress):
            self._change_state(record, "scoring")
        elif record.state == "waiting":
            self._folder.write_trial(started(record))

    def _with_records(self, progress: Progress) -> Progress:
        """Bring what the ranks wrote here, where it is not; a failure of the job if that fails."""
        if self._settings.stored_at is None:
            return progress
        kind: Literal["trial", "base"] = "base" if self._kind == "base" else "trial"
        try:
            stored = StoredSweep(self._folder.root, self._settings.stored_at)
            stored.fetch_records(kind, self._key)
        except StorageError as error:
            return replace(progress, outcome="failed", error=str(error))
        return progress

    def _ended(self, record: TrialRecord, progress: Progress) -> TrialRecord:
        """The record as the end of the job leaves it."""
        if progress.outcome == "failed":
            return failed(record, progress.error or "for an unknown reason")
        if progress.outcome == "stopped":
            return interrupted(record)
        result = train_result(self._folder.root, record.id)
        assert result is not None
        if self._kind == "training":
            # Scored by others, while these ranks train the next trial.
            return trained(record, result)
        card = self._folder.read_scores(record.id)
        assert card is not None
        return scored(trained(record, result), card.seconds)

    def _is_past_training(self, record: TrialRecord, progress: Progress) -> bool:
        if progress.metrics.get("step") == record.total_steps:
            return True
        return train_result(self._folder.root, record.id) is not None

    def _note_waiting(self, record: TrialRecord) -> None:
        settings = self._settings
        note = why_waiting(
            ray.cluster_resources(),
            ray.available_resources(),
            num_workers=settings.num_workers,
            cpus=settings.cpus_per_worker,
            gpus=settings.gpus_per_worker,
        )
        if record.note != note:
            self._folder.write_trial(record.model_copy(update={"note": note}))

    def _change_state(self, record: TrialRecord, state: Any) -> None:
        if record.state != state:
            self._folder.write_trial(record.model_copy(update={"state": state}))

    def _record(self) -> TrialRecord:
        record = self._folder.read_trial(self._key)
        assert record is not None
        return record
