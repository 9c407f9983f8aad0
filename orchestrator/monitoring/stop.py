"""Request a stop of a running sweep or of one of its trials; the driver polls for requests."""

from orchestrator.monitoring.command_hints import resume_command
from orchestrator.record.folder import RUNNING, SweepFolder
from orchestrator.record.lock import is_running
from trainers.foundation.errors import InputError, Problem


def request_stop(folder: SweepFolder, trial_id: str | None) -> str:
    """Write a stop request for the driver, and return a message that states its effect.

    Raises:
        InputError: no sweep is running in the folder, or the trial has ended.
    """
    where = str(folder.relative())
    sweep = folder.read_sweep()
    resume = resume_command(sweep)
    if not is_running(folder):
        states = [trial.state for trial in folder.read_trials()]
        # The next `plw sweep` runs failed trials again.
        is_complete = len(states) == len(sweep.trial_ids) and set(states) <= {"done", "stopped"}
        raise InputError(
            Problem(
                message="no sweep is running in this folder",
                where=where,
                fix="nothing to stop: all its trials are done"
                if is_complete
                else f"nothing to stop; {resume} resumes it",
            )
        )
    if trial_id is None:
        folder.request_stop(None)
        return (
            f"stop requested for sweep {sweep.name}: no more trials start, and running trials "
            f"write a checkpoint and stop; {resume} resumes it"
        )
    record = folder.read_trial(trial_id)
    state = "pending" if record is None else record.state
    if state not in ("pending", "waiting", *RUNNING):
        raise InputError(
            Problem(
                message=f"trial {trial_id} is already {state}",
                where=where,
                fix="give a pending or running trial, listed by plw status",
            )
        )
    folder.request_stop(trial_id)
    effect = "writes a checkpoint and stops" if state in RUNNING else "will not start"
    return f"stop requested for trial {trial_id}: it {effect}; the sweep continues with the others"
