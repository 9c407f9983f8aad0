"""What the server stores about files, jobs and events, and how the API shows it."""

import secrets
import string
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from trainers.foundation.records import Record

# Statuses of OpenAI's client. A paused job is `queued` with `paused` true.
JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
FINAL: tuple[JobStatus, ...] = ("succeeded", "failed", "cancelled")
ORGANIZATION = "plw"
_ALPHABET = string.ascii_letters + string.digits
_ID_LENGTH = 24


def new_id(prefix: str) -> str:
    """Return a random id such as file-Ab3..., which is also a valid file name."""
    return f"{prefix}-" + "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))


class FileRecord(Record):
    """An uploaded file. `owner` is the id of an API key, or empty on a server without keys.

    `faults` has one line per fault of the content, each with its line number.
    """

    id: str
    owner: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    num_examples: int = 0
    faults: list[str] = Field(default_factory=list)

    def public(self) -> dict[str, Any]:
        """Return the file object of the API."""
        return {
            "object": "file",
            **self.model_dump(include={"id", "bytes", "created_at", "filename", "purpose"}),
            "status": "error" if self.faults else "processed",
            "status_details": "; ".join(self.faults) or None,
            "expires_at": None,
        }


class AutoSearch(Record):
    """The sweep of a job with `prompt_loss_weight: "auto"`; `spec` lacks model and data paths."""

    weights: list[float]
    seeds: list[int]
    default: float
    spec: dict[str, Any]
    result: dict[str, Any] | None = None


class JobRecord(Record):
    """A fine-tuning job.

    `requested` are the hyperparameters as requested, `settings` those of `plw train` without the
    paths of model and data. `is_live`: a process of the job may exist. `stage` is what the next
    process does, and `is_stage_started` whether an earlier one began it. `crashes` counts deaths of
    its process without a new step.
    """

    id: str
    owner: str
    created_at: int
    status: JobStatus = "queued"
    paused: bool = False
    is_live: bool = False
    stage: Literal["search", "train"] = "train"
    is_stage_started: bool = False
    crashes: int = 0
    last_step: int = 0
    total_steps: int | None = None
    model: str
    training_file: str
    validation_file: str | None = None
    suffix: str | None = None
    seed: int = 0
    metadata: dict[str, str] | None = None
    requested: dict[str, Any]
    hyperparameters: dict[str, Any]
    settings: dict[str, Any]
    auto: AutoSearch | None = None
    error: dict[str, Any] | None = None
    fine_tuned_model: str | None = None
    is_model_deleted: bool = False
    started_at: int | None = None
    finished_at: int | None = None
    estimated_finish: int | None = None
    trained_tokens: int | None = None
    result_files: list[str] = Field(default_factory=list)
    train_loss: float | None = None
    valid_loss: float | None = None
    tracking: dict[str, str] | None = None

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def model_name(self) -> str:
        """The name that the tuned model has or will have."""
        return f"ft:{self.model}:{ORGANIZATION}:{self.suffix or ''}:{self.id[-8:]}"

    def public(self) -> dict[str, Any]:
        """Return the job object of the API, with our additional fields."""
        shown = {
            *("id", "created_at", "status", "paused", "model", "training_file", "validation_file"),
            *("seed", "hyperparameters", "error", "fine_tuned_model", "finished_at"),
            *("estimated_finish", "trained_tokens", "result_files"),
        }
        return {
            "object": "fine_tuning.job",
            **self.model_dump(mode="json", include=shown),
            "metadata": {**(self.metadata or {}), **(self.tracking or {})} or None,
            "organization_id": ORGANIZATION,
            "integrations": None,
            "method": {
                "type": "supervised",
                "supervised": {"hyperparameters": self.hyperparameters},
            },
            "prompt_loss_weight": self.hyperparameters["prompt_loss_weight"],
            "requested_hyperparameters": self.requested,
            "auto": None if self.auto is None else self.auto.model_dump(mode="json"),
            "train_config": self.settings,
        }


class EventRecord(Record):
    """An event of a job; `key` makes it unique in its job, so that it is recorded only once."""

    key: str
    created_at: int
    level: Literal["info", "warn", "error"] = "info"
    type: Literal["message", "metrics"] = "message"
    message: str
    data: dict[str, Any] = Field(default_factory=dict)

    def public(self, job_id: str) -> dict[str, Any]:
        """Return the event object of the API."""
        return {
            "object": "fine_tuning.job.event",
            "id": event_id(job_id, self.key),
            **self.model_dump(mode="json", exclude={"key"}),
        }


def event_id(job_id: str, key: str) -> str:
    return f"ftevent-{job_id.removeprefix('ftjob-')}-{key}"


def page(objects: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """Return a page of a list, as the client's pagination expects it."""
    ends: Mapping[str, Any] = {
        "first_id": objects[0]["id"] if objects else None,
        "last_id": objects[-1]["id"] if objects else None,
    }
    return {"object": "list", "data": objects, **ends, "has_more": has_more}
