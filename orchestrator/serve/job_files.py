"""The files that server and job process exchange: job.json, events.jsonl and exit.json."""

import errno
import json
import os
import time
from typing import Any

from orchestrator.serve.paths import JobFolder
from orchestrator.serve.records import EventRecord
from trainers.foundation.files import read_json
from trainers.foundation.records import Record

# The job's process exits with this code if it cannot even write exit.json.
DISK_FULL_EXIT = os.EX_IOERR


class WorkerInput(Record):
    """What the server writes into job.json; `spec` is that of an auto search.

    `tags` are those of the job's MLflow run.
    """

    settings: dict[str, Any]
    spec: dict[str, Any] | None = None
    default_weight: float = 0.0
    niceness: int = 0
    address: str | None = None
    job_id: str
    tracking_uri: str
    tags: dict[str, str]


class WorkerExit(Record):
    """How a stage ended: `error` has code, message and param; None after success.

    `search` is the result of a search: weight, reason and cost. `template_args` are those of the
    training, with the date that its prompts show. `mlflow` has the ids of the run and the
    experiment's name.
    """

    stage: str
    error: dict[str, Any] | None = None
    trained_tokens: int | None = None
    steps: int | None = None
    train_loss: float | None = None
    valid_loss: float | None = None
    template_args: dict[str, Any] | None = None
    search: dict[str, Any] | None = None
    mlflow: dict[str, str] | None = None


def read_exit(folder: JobFolder) -> WorkerExit | None:
    """Return how the job's last process ended; None if it was killed, or a power cut tore it."""
    try:
        return WorkerExit.model_validate(read_json(folder.exit_json))
    except (FileNotFoundError, ValueError):
        return None


class JobError(Exception):
    """An error of a job with a code for clients; `param` is the parameter that caused it."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.param = code, param

    @property
    def fields(self) -> dict[str, Any]:
        return {"code": self.code, "message": str(self), "param": self.param}


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error, or its cause, means that the disk is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # The libraries that write weights, and the trainer's check before a checkpoint.
    if any(text in str(error) for text in (os.strerror(errno.ENOSPC), "GiB are free at")):
        return True
    return error.__cause__ is not None and is_disk_full(error.__cause__)


def add_event(folder: JobFolder, key: str, message: str, **fields: Any) -> None:
    """Append an event; the server records each key once."""
    event = EventRecord(key=key, created_at=int(time.time()), message=message, **fields)
    with folder.events.open("a", encoding="utf-8") as file:
        file.write(json.dumps(event.model_dump(mode="json")) + "\n")
