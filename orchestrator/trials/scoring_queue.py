"""Trained trials and untuned baselines that wait to be scored. Independent of Ray."""

from collections import deque
from dataclasses import replace

from orchestrator.record.folder import SweepFolder
from orchestrator.trials.queued_job import QueuedJob
from orchestrator.trials.run_trial import mark_interrupted

WAITING_NOTE = "waits for a scorer"


class ScoringQueue:
    """Decides which waiting model is scored next, and whether by a scorer or in a trial's slot.

    Each scorer may have one running and one waiting model; slots score the others, and after the
    last training all that wait, unless `slots_help` is false.
    """

    def __init__(self, folder: SweepFolder, num_scorers: int, *, slots_help: bool) -> None:
        self._folder = folder
        self._num_scorers, self._slots_help = num_scorers, slots_help
        self._num_running = 0
        self._waiting: deque[QueuedJob] = deque()

    @property
    def has_scorers(self) -> bool:
        return self._num_scorers > 0

    @property
    def is_empty(self) -> bool:
        """True if no model waits."""
        return not self._waiting

    def add(self, job: QueuedJob) -> None:
        """Add a model; the record of its trial, if any, then states that it waits."""
        self._waiting.append(job)
        if job.kind == "scoring":
            record = self._folder.read_trial(job.key)
            assert record is not None
            changes = {"state": "scoring", "note": WAITING_NOTE, "is_scored_beside": True}
            self._folder.write_trial(record.model_copy(update=changes))

    def next_on_scorer(self) -> QueuedJob | None:
        """Return the next model for a scorer; None if no model waits or all scorers are busy."""
        if not self._waiting or self._num_running >= self._num_scorers:
            return None
        self._num_running += 1
        return replace(self._waiting.popleft(), on_scorer=True)

    def next_in_slot(self, *, is_training_over: bool) -> QueuedJob | None:
        """Return the next model for a trial's slot; None if the scorers score all."""
        most = 0 if is_training_over else self._num_scorers
        is_due = self._slots_help and len(self._waiting) > most
        return self._waiting.popleft() if is_due else None

    def job_ended(self, job: QueuedJob) -> None:
        """Free the scorer of a job, if it had one."""
        self._num_running -= job.on_scorer

    def remove_stopped(self) -> list[str]:
        """Remove the trials that were stopped while they waited; return their ids."""
        stopped = [
            job
            for job in self._waiting
            if job.kind == "scoring" and self._folder.stop_requested(job.key)
        ]
        for job in stopped:
            self._waiting.remove(job)
            record = self._folder.read_trial(job.key)
            assert record is not None
            self._folder.write_trial(mark_interrupted(record))
        return [job.key for job in stopped]
