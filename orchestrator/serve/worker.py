"""The process of a job: `python -m orchestrator.serve.worker FOLDER STAGE LOCK_FD`.

It holds the lock of the job's folder from its start to its end, so the server sees whether it
lives, also after a restart. It writes `exit.json` last; without that file the job is not done, and
the server starts it again: it resumes from its last checkpoint.
"""

import logging
import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.serve.job_files import (
    DISK_FULL_EXIT,
    JobError,
    WorkerExit,
    WorkerInput,
    is_disk_full,
)
from orchestrator.serve.paths import JobFolder
from trainers.config import TrainConfig
from trainers.foundation.errors import InputError, TrainingError
from trainers.foundation.files import read_json, write_json
from trainers.foundation.settings_file import build_config

_AUTOGROUP = Path("/proc/self/autogroup")


def main(root: str, stage: str, lock_fd: str) -> int:
    """Run one stage of the job in `root`; return the exit code of the process."""
    os.set_inheritable(int(lock_fd), False)  # Ray's processes must not keep the lock.
    os.write(int(lock_fd), str(os.getpid()).encode())
    # A shell's background job ignores SIGINT, and its processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder = JobFolder(Path(root))
    job = WorkerInput.model_validate(read_json(folder.job_json))
    _set_niceness(job.niceness)
    try:
        ended = _run(folder, job, stage)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        with suppress(OSError):  # On a full disk, the log cannot be written either.
            traceback.print_exc()
        ended = WorkerExit(stage=stage, error=_error_fields(error))
    os.sync()  # What exit.json says must be true after a power cut.
    try:
        write_json(folder.exit_json, ended.model_dump(mode="json"))
    except OSError:
        os._exit(DISK_FULL_EXIT)  # The usual exit fails where the log cannot be written.
    return 0


def _set_niceness(niceness: int) -> None:
    """Yield to the server, which runs in another session.

    Where Linux groups processes by session (autogroups, the default of most distributions), the
    niceness of a process counts within its session only, and the session has one of its own.
    """
    os.nice(niceness)
    with suppress(OSError):  # No autogroups here.
        _AUTOGROUP.write_text(str(niceness), encoding="ascii")


def _run(folder: JobFolder, job: WorkerInput, stage: str) -> WorkerExit:
    # Imported here: torch takes seconds, and a signal before that needs no clean-up.
    from orchestrator.serve.stages import check_data, search, track, train

    config = build_config(TrainConfig, job.settings, source=Path("job"))
    is_auto = job.spec is not None
    check_data(folder, config, None if is_auto else config.loss.prompt_loss_weight)
    if stage == "search":
        assert job.spec is not None
        return search(folder, job.spec, job.default_weight, job.address)
    ended = train(folder, config)
    return ended.model_copy(update={"mlflow": track(folder, job, config)})


def _error_fields(error: Exception) -> dict[str, Any]:
    """Return code, message and param of the error that ended a job."""
    message = str(error).strip() or type(error).__name__
    if is_disk_full(error):
        return JobError("disk_full", message).fields
    if isinstance(error, JobError):
        return error.fields
    if isinstance(error, InputError):
        return JobError("invalid_settings", message).fields
    if isinstance(error, TrainingError):
        code = "training_failed" if error.kind == "crash" else error.kind
        return JobError(code, message).fields
    return JobError("server_error", f"{type(error).__name__}: {message}").fields


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
