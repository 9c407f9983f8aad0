"""Tune actor that runs one job after another on warm workers: ranks, or a scorer.

A job trains a trial, scores it, or both, or scores the untuned model of a baseline. While a job
runs, only the driver writes the trial's record; the workers write the trial's other files. The last
result contains the record, because another node may see an old version of its file.
"""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import ray
from ray import tune

from orchestrator.record.folder import BaselineUsage, SweepFolder, TrialRecord
from orchestrator.record.remote_sweep import RemoteSweep
from orchestrator.trials.job_channel import Job, Progress
from orchestrator.trials.placement import DRIVER_RESOURCE, waiting_reason
from orchestrator.trials.run_trial import (
    mark_failed,
    mark_interrupted,
    mark_scored,
    mark_started,
    mark_trained,
    train_result,
)
from orchestrator.trials.scoring_queue import WAITING_NOTE
from orchestrator.trials.shared_files import invisible_reason, read_when_visible
from orchestrator.trials.workers import Workers, WorkerSettings
from trainers.foundation.object_store import StorageError

POLL_S = 1.0
# A training step may take long, and so may a checkpoint of a large model.
STOP_TIMEOUT_S = 600.0
DRIVER_MEMORY_BYTES = 100 * 2**20


class TrialDriver(tune.Trainable):  # type: ignore[misc]
    """Tune actor whose `step` ends at a held-out measurement of a trial, or at the end of its job.

    Tune keeps the actor between trials (`reuse_actors`), and the actor keeps its workers. To Tune,
    a failed trial ends like any other; the failure is in the trial's record.
    """

    def setup(self, config: dict[str, Any], settings: WorkerSettings) -> None:
        self._settings = settings
        self._folder = SweepFolder(Path(settings.root))
        self._workers: Workers | None = None
        self._seen = Progress()
        self._reset(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._discard()
        self._reset(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if not self._is_submitted:
            self._submit()
        assert self._workers is not None
        num_seen = len(self._seen.heldout)
        while True:
            progress = self._workers.wait(self._seen, POLL_S)
            self._update_record(progress)
            is_retried = progress.num_failures > self._seen.num_failures
            self._seen = progress
            if progress.is_finished:
                self._is_running = False
                return self._job_result(progress)
            if is_retried:
                return {"done": False, "point": self._point, "retried": progress.error}
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
                return self._job_result(progress)

    def _job_result(self, progress: Progress) -> dict[str, Any]:
        result: dict[str, Any] = {"done": True, "point": self._point}
        if progress.outcome == "failed":
            result["failed"] = progress.error
        if self._kind != "base":
            result["record"] = self._record()
        return result

    def cleanup(self) -> None:
        if self._workers is not None:
            self._discard()
            # Do not wait for busy workers: they end together with Ray, and their checkpoints are
            # complete.
            self._workers.close(wait=not self._is_running)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: the ranks write checkpoints into the trial's folder."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Load nothing: a restarted trial resumes from the checkpoints in its folder."""

    def _reset(self, config: dict[str, Any]) -> None:
        self._kind, self._key = config["kind"], config["key"]
        self._on_scorer = config["on_scorer"]
        self._point, self._untuned = config["point"], config["untuned"]
        self._is_submitted = self._is_running = self._is_stopping = False
        self._seen = Progress()

    def _submit(self) -> None:
        if self._workers is None:
            self._workers = self._make_workers()
        self._is_submitted = self._is_running = True
        self._started_at: float | None = None
        if self._kind == "base":
            self._workers.submit(Job("base", self._key, self._key, **self._untuned))
            return
        record = self._record()
        # Scoring a trained trial does not count as an attempt.
        self._num_earlier = record.attempts - (record.state == "done")
        self._busy_earlier_s: float = getattr(record, self._usage)
        if self._kind != "scoring":
            waiting = {"state": "waiting", "error": None, "failure": None}
            self._folder.write_trial(record.model_copy(update=waiting))
        elif not self._on_scorer:
            taken_over = {"note": None, "is_scored_beside": False}
            self._folder.write_trial(record.model_copy(update=taken_over))
        model_path = str(self._folder.model(record.id))
        self._workers.submit(
            Job(self._kind, record.id, record.base, record.settings, model_path, record.opponent)
        )

    def _make_workers(self) -> Workers:
        # Imported here, because Ray Train imports torch, and a driver of a scorer needs neither.
        if self._on_scorer:
            from orchestrator.trials.warm_scorer import WarmScorer

            return WarmScorer(self._settings)
        from orchestrator.trials.ray_launch import WarmRanks

        return WarmRanks(f"ranks-{os.getpid()}", self._settings)

    @property
    def _usage(self) -> Literal["scorer_seconds", "busy_seconds"]:
        """The field of the record that counts the time of this driver's workers."""
        return "scorer_seconds" if self._on_scorer else "busy_seconds"

    def _is_stop_requested(self) -> bool:
        folder = self._folder
        return folder.stop_requested(None) or (
            self._kind != "base" and folder.stop_requested(self._key)
        )

    def _end_early(self) -> bool:
        """Ask the ranks for a checkpoint; return True if the driver need not wait for them.

        That is the case if the whole sweep ends and the ranks are not training. If the sweep
        continues, the ranks must finish this job before they can start another.
        """
        assert self._workers is not None
        state = self._record().state if self._kind != "base" else None
        if self._folder.stop_requested(None) and state != "training":
            if state is not None:
                self._folder.write_trial(mark_interrupted(self._record()))
            return True
        if state in ("waiting", "training") and not self._is_stopping:
            self._workers.stop("checkpoint")
            self._is_stopping = True
        return False

    def _discard(self) -> None:
        """End the running trial after the scheduler has stopped it early."""
        if not self._is_running or self._workers is None or self._folder.stop_requested(None):
            return
        self._workers.stop("discard")
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while not self._seen.is_finished and time.monotonic() < deadline:
            self._seen = self._workers.wait(self._seen, POLL_S)
        self._is_running = not self._seen.is_finished

    def _update_record(self, progress: Progress) -> None:
        """Update the record of the job's trial or baseline from its progress."""
        if progress.outcome == "done":
            progress = self._download_records(progress)
        if progress.attempts > 0 and self._started_at is None:
            self._started_at = time.monotonic()
        busy_s = 0.0 if self._started_at is None else time.monotonic() - self._started_at
        if self._kind == "base":
            if progress.is_finished:
                usage = BaselineUsage.model_validate({self._usage: busy_s})
                self._folder.add_baseline_usage(self._key, usage)
            return
        record = self._record()
        num_attempts = 0 if self._kind == "scoring" else progress.attempts
        record = record.model_copy(
            update={
                "attempts": self._num_earlier + num_attempts,
                self._usage: self._busy_earlier_s + busy_s,
            }
        )
        if progress.is_finished:
            self._folder.write_trial(self._final_record(record, progress))
        elif self._on_scorer:
            self._note_scorer(record, progress)
        elif self._kind == "scoring":
            return
        elif progress.attempts == 0:
            self._note_waiting(record)
        elif self._kind == "trial" and self._is_past_training(record, progress):
            self._change_state(record, "scoring")
        elif record.state == "waiting":
            self._folder.write_trial(mark_started(record))

    def _download_records(self, progress: Progress) -> Progress:
        """Download the files that the ranks wrote to the object store; a failure fails the job."""
        if self._settings.storage_uri is None:
            return progress
        kind: Literal["trial", "base"] = "base" if self._kind == "base" else "trial"
        try:
            stored = RemoteSweep(self._folder.root, self._settings.storage_uri)
            stored.download_records(kind, self._key)
        except StorageError as error:
            return replace(progress, outcome="failed", error=str(error))
        return progress

    def _final_record(self, record: TrialRecord, progress: Progress) -> TrialRecord:
        """Return the trial's record at the end of its job."""
        if progress.outcome == "failed":
            return mark_failed(record, progress.error or "unknown reason", progress.failure)
        if progress.outcome == "stopped":
            return mark_interrupted(record)
        result = read_when_visible(lambda: train_result(self._folder.root, record.id))
        if result is None:
            return mark_failed(record, invisible_reason("train.json"), "crash")
        if self._kind == "training":
            # A scorer scores this trial while these ranks train the next one.
            return mark_trained(record, result)
        card = read_when_visible(lambda: self._folder.read_scores(record.id))
        if card is None:
            return mark_failed(record, invisible_reason("scores.json"), "crash")
        return mark_scored(mark_trained(record, result), card.seconds)

    def _is_past_training(self, record: TrialRecord, progress: Progress) -> bool:
        if progress.metrics.get("step") == record.total_steps:
            return True
        return train_result(self._folder.root, record.id) is not None

    def _note_waiting(self, record: TrialRecord) -> None:
        settings = self._settings
        note = waiting_reason(
            ray.cluster_resources(),
            ray.available_resources(),
            num_workers=settings.num_workers,
            cpus=settings.cpus_per_worker,
            gpus=settings.gpus_per_worker,
        )
        if record.note != note:
            self._folder.write_trial(record.model_copy(update={"note": note}))

    def _note_scorer(self, record: TrialRecord, progress: Progress) -> None:
        note = None
        if progress.attempts == progress.num_failures:
            then = f", again after: {progress.error}" if progress.error is not None else ""
            note = WAITING_NOTE + then
        if record.note != note:
            self._folder.write_trial(record.model_copy(update={"note": note}))

    def _change_state(self, record: TrialRecord, state: Any) -> None:
        if record.state != state:
            self._folder.write_trial(record.model_copy(update={"state": state}))

    def _record(self) -> TrialRecord:
        record = self._folder.read_trial(self._key)
        assert record is not None
        return record


def driver_resources(
    config: dict[str, Any], *, settings: WorkerSettings, on_driver_node: bool
) -> tune.PlacementGroupFactory:
    """Return what a job's driver reserves, with the bundle of its scorer if it has one.

    Ray Train reserves the resources of ranks. Each driver imports the module of this function, so
    it must not import torch.
    """
    # A driver only waits, so it reserves no cores. Tune requires a reservation; the smallest that
    # it accepts is some memory.
    driver: dict[str, float] = {"memory": DRIVER_MEMORY_BYTES}
    if on_driver_node:
        driver[DRIVER_RESOURCE] = 0.001
    if not config["on_scorer"]:
        return tune.PlacementGroupFactory([driver])
    scorer = {"CPU": float(settings.cpus_per_scorer)}
    if settings.gpus_per_scorer > 0:
        scorer["GPU"] = settings.gpus_per_scorer
    return tune.PlacementGroupFactory([driver, scorer])
