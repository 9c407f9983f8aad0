"""Scoring jobs that wait for the outputs of the trial with PLW 0, their opponent in PandaLM."""

from collections.abc import Callable

from orchestrator.record.folder import SweepFolder, TrialRecord
from orchestrator.trials.queued_job import QueuedJob
from orchestrator.trials.run_trial import mark_failed, mark_interrupted


class AwaitedOpponents:
    """Holds scoring jobs until the trial that is their opponent has been scored.

    Args:
        has_scores: whether a trial has the scores that the sweep requests; its outputs file was
            then written with the present settings.
    """

    def __init__(self, folder: SweepFolder, has_scores: Callable[[TrialRecord], bool]) -> None:
        self._folder, self._has_scores = folder, has_scores
        self._waiting: dict[str, list[QueuedJob]] = {}

    def find_awaited(self, job: QueuedJob) -> str | None:
        """Return the trial whose outputs a job needs and that do not exist yet, or None."""
        if job.kind == "base":
            opponent = job.untuned["opponent"]
        else:
            record = self._folder.read_trial(job.key)
            opponent = record.opponent if record is not None else None
        if opponent is None or opponent == job.key:
            return None
        record = self._folder.read_trial(opponent)
        is_scored = record is not None and record.state == "done" and self._has_scores(record)
        return None if is_scored else opponent

    def add(self, opponent: str, job: QueuedJob) -> None:
        """Hold a job; the record of its trial, if any, states what it waits for."""
        self._waiting.setdefault(opponent, []).append(job)
        if job.kind == "base":
            return
        record = self._folder.read_trial(job.key)
        assert record is not None
        note = f"waits for the outputs of trial {opponent} (PLW 0)"
        changes = {"state": "scoring", "note": note, "is_scored_beside": True}
        self._folder.write_trial(record.model_copy(update=changes))

    def release(self, trial_id: str) -> tuple[list[QueuedJob], list[QueuedJob]]:
        """Return the jobs that wait for a trial that has ended: to run, and without an opponent.

        The records of trials without an opponent are updated: failed, or interrupted like it.
        """
        jobs = self._waiting.pop(trial_id, [])
        opponent = self._folder.read_trial(trial_id)
        if opponent is None or opponent.state == "done":
            return jobs, []
        for job in jobs:
            record = self._folder.read_trial(job.key) if job.kind != "base" else None
            if record is not None and opponent.state == "interrupted":
                self._folder.write_trial(mark_interrupted(record))
            elif record is not None:
                reason = (
                    f"the opponent in pandalm_prompts, trial {trial_id} with PLW 0, "
                    f"{'was stopped' if opponent.state == 'stopped' else 'has failed'}"
                )
                self._folder.write_trial(mark_failed(record, reason, "input"))
        return [], jobs
