"""Create, pause, resume and cancel jobs. The runner starts and ends their processes."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from typing import Any

from orchestrator.serve.config import ServeConfig
from orchestrator.serve.create_request import CreateRequest, parse_create_request
from orchestrator.serve.errors import ApiError, invalid_value, no_such_job
from orchestrator.serve.job_settings import job_settings
from orchestrator.serve.paths import DataFolder
from orchestrator.serve.records import EventRecord, FileRecord, JobRecord, new_id
from orchestrator.serve.store import Store
from orchestrator.serve.uploads import Files

# The official client repeats a request without an idempotency key, but counts its retries.
RETRY_WINDOW_S = 600.0


class Jobs:
    """The jobs of all owners. `on_change` wakes the runner."""

    def __init__(
        self,
        store: Store,
        folder: DataFolder,
        config: ServeConfig,
        files: Files,
        on_change: Callable[[], None],
    ) -> None:
        self._store, self._folder, self._config = store, folder, config
        self._files, self._on_change = files, on_change
        for leftover in folder.unstarted_jobs():  # of requests that a kill interrupted
            if store.job(leftover.root.name) is None:
                shutil.rmtree(leftover.root)

    def create(self, owner: str, body: Any, *, key: str | None, is_retry: bool) -> JobRecord:
        """Create a job, or return the one that the same request created before.

        Args:
            key: the request's Idempotency-Key.
            is_retry: the client says that it has sent the request before.

        Raises:
            ApiError: the request is invalid.
        """
        request = parse_create_request(body)
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        with self._store.transaction():
            before = self._created_before(owner, digest, key, is_retry)
            if before is not None:
                return before
            job = self._new_job(owner, request)
            self._store.add_job(job)
            self._store.add_request(owner, key or "", digest, job.id, time.time())
            self._store.add_events(job.id, _first_events(job))
        self._on_change()
        return job

    def _created_before(
        self, owner: str, digest: str, key: str | None, is_retry: bool
    ) -> JobRecord | None:
        if key:
            before = self._store.request_of_key(owner, key)
            if before is None:
                return None
            if before[0] != digest:
                raise ApiError(
                    400,
                    "The Idempotency-Key was used before with another body.",
                    type="idempotency_error",
                    code="idempotency_key_reused",
                )
            return self._store.job(before[1])
        if not is_retry:
            return None
        job_id = self._store.recent_request(owner, digest, time.time() - RETRY_WINDOW_S)
        return None if job_id is None else self._store.job(job_id)

    def _new_job(self, owner: str, request: CreateRequest) -> JobRecord:
        """Return the record of a new job, whose folder has its data."""
        entry = self._config.models.get(request.model)
        if entry is None:
            names = ", ".join(self._config.models)
            message = f"Model '{request.model}' cannot be fine-tuned here; available: {names}."
            raise invalid_value("model", message, "model_not_available")
        training = self._files.for_job(request.training_file, owner, "training_file")
        validation = None
        if request.validation_file is not None:
            validation = self._files.for_job(request.validation_file, owner, "validation_file")
        hyperparameters, settings, auto = job_settings(
            request, entry, self._config, training.num_examples
        )
        job = JobRecord(
            id=new_id("ftjob"),
            owner=owner,
            created_at=int(time.time()),
            stage="train" if auto is None else "search",
            model=request.model,
            training_file=request.training_file,
            validation_file=request.validation_file,
            suffix=request.suffix,
            seed=request.seed,
            metadata=request.metadata,
            requested=request.hyperparameters,
            hyperparameters=hyperparameters,
            settings=settings,
            auto=auto,
        )
        self._link_data(job.id, training, validation)
        return job

    def _link_data(self, job_id: str, training: FileRecord, validation: FileRecord | None) -> None:
        """Link the data into the job's folder, so that it outlives the deletion of the files."""
        folder = self._folder.job(job_id)
        folder.root.mkdir(parents=True)
        try:
            os.link(self._files.path(training), folder.training)
            if validation is not None:
                os.link(self._files.path(validation), folder.validation)
        except FileNotFoundError:  # The file was deleted at the same moment.
            shutil.rmtree(folder.root)
            raise invalid_value(
                "training_file", "The file was deleted.", "invalid_training_file"
            ) from None

    def get(self, job_id: str, owner: str) -> JobRecord:
        """Return a job of `owner`.

        Raises:
            ApiError: there is none.
        """
        job = self._store.job(job_id, owner)
        if job is None:
            raise no_such_job(job_id)
        return job

    def cancel(self, job_id: str, owner: str) -> JobRecord:
        """Cancel a job; its process ends soon after."""
        return self._change(
            job_id, owner, "cancel", "cancelled", status="cancelled", finished_at=int(time.time())
        )

    def pause(self, job_id: str, owner: str) -> JobRecord:
        """Pause a job: its process writes a checkpoint and ends."""
        job = self.get(job_id, owner)
        if job.paused:
            return job
        return self._change(job_id, owner, "pause", "paused", status="queued", paused=True)

    def resume(self, job_id: str, owner: str) -> JobRecord:
        """Continue a paused job from its checkpoint.

        Raises:
            ApiError: there is no such job, or it is not paused.
        """
        job = self.get(job_id, owner)
        if not job.is_final and not job.paused:
            raise ApiError(
                400, f"Job {job_id} is not paused.", param="fine_tuning_job_id", code="not_paused"
            )
        return self._change(job_id, owner, "resume", "resumed", paused=False)

    def _change(
        self, job_id: str, owner: str, verb: str, done: str, **changes: object
    ) -> JobRecord:
        with self._store.transaction():
            job = self.get(job_id, owner)
            if job.is_final:
                raise ApiError(
                    400,
                    f"Cannot {verb} job {job_id}: it has already {job.status}."
                    if job.status != "cancelled"
                    else f"Cannot {verb} job {job_id}: it is already cancelled.",
                    param="fine_tuning_job_id",
                    code="invalid_job_state",
                )
            job = self._store.update_job(job_id, **changes)
            event = EventRecord(
                key=f"{done}-{time.time_ns()}",
                created_at=int(time.time()),
                message=f"The job was {done}",
            )
            self._store.add_events(job_id, [event])
        self._on_change()
        return job


def _first_events(job: JobRecord) -> list[EventRecord]:
    messages = [f"Created fine-tuning job: {job.id}"]
    weight = job.hyperparameters["prompt_loss_weight"]
    if job.auto is None:
        messages.append(f"prompt_loss_weight {weight:g}")
    else:
        search = job.auto
        budget = ", ".join(
            f"{name} {value:g}"
            for name, value in search.spec["search"]["budget"].items()
            if value is not None
        )
        weights = ", ".join(f"{one:g}" for one in search.weights)
        messages.append(
            f"prompt_loss_weight auto: sweep over {weights} with {len(search.seeds)} seeds"
            f" ({len(search.weights) * len(search.seeds)} trials; budget: {budget or 'no limit'};"
            f" {search.spec['data']['heldout_examples']} held-out examples), then the final model"
        )
    return [
        EventRecord(key=f"created-{index}", created_at=job.created_at, message=message)
        for index, message in enumerate(messages)
    ]
