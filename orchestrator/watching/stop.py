"""Ask a running sweep, or one trial of it, to end: the driver looks for such requests."""

from orchestrator.record.folder import RUNNING, SweepFolder
from orchestrator.record.lock import is_running
from orchestrator.watching.typed import typed_again
from trainers.foundation.errors import InputError, Problem


def ask_to_stop(folder: SweepFolder, trial_id: str | None) -> str:
    """Leave a request for the driver; returns what will come of it, for people.

    Raises:
        InputError: no sweep runs in the folder, or the trial has ended already.
    """
    where = str(folder.relative())
    sweep = folder.read_sweep()
    again = typed_again(sweep.spec_path)
    if not is_running(folder):
        raise InputError(
            Problem(
                message="no sweep is running in this folder",
                where=where,
                fix=f"nothing to stop; {again} goes on with what is not done",
            )
        )
    if trial_id is None:
        folder.request_stop(None)
        return (
            f"asked the sweep {sweep.name} to stop: no more trials start, those that run write a "
            f"checkpoint and end; {again} goes on"
        )
    record = folder.read_trial(trial_id)
    state = "pending" if record is None else record.state
    if state not in ("pending", "waiting", *RUNNING):
        raise InputError(
            Problem(
                message=f"trial {trial_id} is {state} already",
                where=where,
                fix="give one that is pending or running; plw status lists them",
            )
        )
    folder.request_stop(trial_id)
    what = "writes a checkpoint and ends" if state in RUNNING else "will not be started"
    return f"asked trial {trial_id} to stop: it {what}; the sweep goes on with the others"
