"""Start jobs, follow their processes and record how they end.

The runner decides from what is on disk: the record, whether a process holds the job's lock, and
`exit.json`. So it continues the same way after any crash, its own included.
"""

import csv
import io
import logging
import signal
import threading
import time
from typing import Any

from orchestrator.serve.config import ServeConfig
from orchestrator.serve.job_files import (
    DISK_FULL_EXIT,
    WorkerExit,
    WorkerInput,
    is_disk_full,
    read_exit,
)
from orchestrator.serve.job_progress import JobProgress
from orchestrator.serve.paths import DataFolder, JobFolder, without_paths
from orchestrator.serve.processes import JobProcesses
from orchestrator.serve.records import EventRecord, FileRecord, JobRecord
from orchestrator.serve.store import Store
from orchestrator.serve.uploads import RESULTS, Files
from orchestrator.tracking.uri import SQLITE_PREFIX
from trainers.foundation.files import write_json
from trainers.foundation.jsonl import read_jsonl

log = logging.getLogger(__name__)

_POLL_S = 0.5
_CLOSE_S = 150.0
_INTERRUPTED = (-signal.SIGTERM, 128 + signal.SIGTERM, 128 + signal.SIGINT)


class Runner:
    """Runs the jobs of a store in a background thread until it is closed."""

    def __init__(self, store: Store, folder: DataFolder, config: ServeConfig, files: Files) -> None:
        self._store, self._folder, self._config, self._files = store, folder, config, files
        self._processes = JobProcesses()
        self._progress: dict[str, JobProgress] = {}
        # The store's version at the last look, and whether a process lived then.
        self._seen, self._has_live = -1, True
        self._wake, self._is_closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="jobs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Look at the jobs now: one has changed."""
        self._wake.set()

    def close(self) -> None:
        """End the runner; running jobs write a checkpoint, end, and resume at the next start."""
        self._is_closing.set()
        self._wake.set()
        self._thread.join()
        deadline = time.monotonic() + _CLOSE_S
        while time.monotonic() < deadline:
            alive = [folder for folder in self._live_folders() if self._processes.is_alive(folder)]
            if not alive:
                return
            for folder in alive:
                self._processes.stop(folder)
            self._wake.clear()
            self._wake.wait(_POLL_S)

    def _live_folders(self) -> list[JobFolder]:
        return [self._folder.job(job.id) for job in self._store.active_jobs() if job.is_live]

    def _loop(self) -> None:
        while not self._is_closing.is_set():
            self._wake.wait(_POLL_S)
            self._wake.clear()
            try:
                self._step()
            except Exception:  # The database cannot be read: try again, since jobs continue.
                log.exception("the jobs could not be updated")

    def _step(self) -> None:
        if self._store.version == self._seen and not self._has_live:
            return
        self._seen = self._store.version
        num_running = 0
        self._has_live = False
        for job in self._store.active_jobs():
            try:
                num_running += self._update(job, num_running < self._config.jobs.at_once)
            except Exception:  # The other jobs must continue.
                self._has_live = True
                log.exception("%s could not be updated", job.id)

    def _update(self, job: JobRecord, has_room: bool) -> bool:
        """Bring one job's record up to date; return whether its process lives.

        Args:
            has_room: start a process if the job waits for one.
        """
        folder = self._folder.job(job.id)
        is_alive = self._processes.is_alive(folder)
        if is_alive:
            self._follow(job, folder)
        elif job.is_live:
            job = self._ended(job, folder)
        if not is_alive and has_room and not job.is_final and not job.paused:
            is_alive = self._start(job, folder)
        self._has_live |= is_alive
        return is_alive

    def _start(self, job: JobRecord, folder: JobFolder) -> bool:
        """Start the process of a job, unless the job has just changed; return whether it lives."""
        with self._store.transaction():
            current = self._store.job(job.id)
            if current is None or current.is_final or current.paused:
                return False
            started = job.started_at or int(time.time())
            job = self._store.update_job(
                job.id,
                status="running",
                is_live=True,
                is_stage_started=True,
                started_at=started,
            )
            if current.is_stage_started or not current.started_at:
                verb = "resumed" if current.started_at else "started"
                self._add_event(job, f"{verb}-{time.time_ns()}", f"Fine-tuning job {verb}")
        try:
            write_json(folder.job_json, self._worker_input(job, folder).model_dump(mode="json"))
            self._processes.start(folder, job.stage)
        except OSError as error:
            with self._store.transaction():
                code = "disk_full" if is_disk_full(error) else "server_error"
                self._fail(job, code, f"The job could not be started: {error.strerror}", None)
                self._store.update_job(job.id, is_live=False)
            return False
        return True

    def _worker_input(self, job: JobRecord, folder: JobFolder) -> WorkerInput:
        """Return the settings with the paths that the API does not show."""
        entry = self._config.models.get(job.model)
        # A model that was removed from the configuration fails with its name as the path.
        paths = {
            "model": {"path": job.model if entry is None else entry.path},
            "data": {"path": str(folder.training)},
        }

        def with_paths(content: dict[str, Any]) -> dict[str, Any]:
            return {**content, **{name: {**content[name], **paths[name]} for name in paths}}

        default = f"{SQLITE_PREFIX}{self._folder.root / 'mlflow.db'}"
        tracking_uri = self._config.tracking_uri or default
        spec = None
        if job.auto is not None:
            spec = with_paths(job.auto.spec) | {
                "output_dir": str(folder.sweep),
                "tracking": {"uri": tracking_uri, "experiment": job.id},
            }
        return WorkerInput(
            settings=with_paths(job.settings),
            spec=spec,
            default_weight=0.0 if job.auto is None else job.auto.default,
            niceness=self._config.jobs.niceness,
            address=self._config.jobs.address,
            job_id=job.id,
            tracking_uri=tracking_uri,
            tags={"plw.job_id": job.id, "plw.model": job.model_name, **(job.metadata or {})},
        )

    def _follow(self, job: JobRecord, folder: JobFolder) -> None:
        """Record the progress of a job whose process lives, and stop it where asked."""
        if job.is_final or job.paused:
            self._processes.stop(folder)
            return
        if job.status != "running" or not job.is_live:  # A server was killed at the start.
            with self._store.transaction():
                self._store.update_job(job.id, status="running", is_live=True)
        self._record_progress(job, folder)

    def _record_progress(self, job: JobRecord, folder: JobFolder) -> None:
        if job.id not in self._progress:
            self._progress[job.id] = JobProgress(folder)
        progress = self._progress[job.id]
        events = [self._shown(job, event) for event in progress.new_events()]
        if not events:
            return
        try:
            self._add_progress(job, events, progress)
        except BaseException:
            del self._progress[job.id]  # The next look reads the events again.
            raise

    def _add_progress(
        self, job: JobRecord, events: list[EventRecord], progress: JobProgress
    ) -> None:
        with self._store.transaction():
            self._store.add_events(job.id, events)
            current = self._store.job(job.id)
            assert current is not None
            if progress.last_step > current.last_step:
                self._store.update_job(
                    job.id,
                    last_step=progress.last_step,
                    total_steps=progress.total_steps,
                    estimated_finish=None if current.is_final else progress.estimated_finish(),
                    crashes=0,
                )

    def _ended(self, job: JobRecord, folder: JobFolder) -> JobRecord:
        """Record the end of a job's process; return the job."""
        self._record_progress(job, folder)
        code = self._processes.exit_code(folder)
        self._progress.pop(job.id, None)
        with self._store.transaction():
            current = self._store.job(job.id)
            assert current is not None
            if current.is_final:
                pass
            elif (ended := read_exit(folder)) is not None:
                self._stage_ended(current, folder, ended)
            elif code == DISK_FULL_EXIT:
                self._fail(current, "disk_full", "The disk of the server is full.", None)
            else:
                self._died(current, code)
            job = self._store.update_job(job.id, is_live=False)
        # After the commit: on a full disk it is tried again.
        self._processes.forget(folder)
        if job.status == "cancelled":
            folder.remove_model()
        return job

    def _stage_ended(self, job: JobRecord, folder: JobFolder, ended: WorkerExit) -> None:
        if ended.error is not None:
            error = ended.error
            self._fail(job, error["code"], error["message"], error["param"])
        elif ended.stage == "search":
            assert job.auto is not None
            assert ended.search is not None
            result = {**ended.search, "reason": self._clean(job, ended.search["reason"])}
            weight = result["prompt_loss_weight"]
            loss = {**job.settings["loss"], "prompt_loss_weight": weight}
            self._store.update_job(
                job.id,
                stage="train",
                is_stage_started=False,
                auto=job.auto.model_copy(update={"result": result}),
                hyperparameters={**job.hyperparameters, "prompt_loss_weight": weight},
                settings={**job.settings, "loss": loss},
            )
            self._add_event(
                job, "final-model", f"Training the final model with prompt_loss_weight {weight:g}"
            )
        else:
            self._succeed(job, folder, ended)

    def _succeed(self, job: JobRecord, folder: JobFolder, ended: WorkerExit) -> None:
        results = self._add_result_file(job, folder)
        data = {**job.settings["data"], "template_args": ended.template_args or {}}
        self._store.update_job(
            job.id,
            status="succeeded",
            paused=False,
            finished_at=int(time.time()),
            estimated_finish=None,
            fine_tuned_model=job.model_name,
            trained_tokens=ended.trained_tokens,
            train_loss=ended.train_loss,
            valid_loss=ended.valid_loss,
            last_step=ended.steps,
            total_steps=ended.steps,
            settings={**job.settings, "data": data},
            result_files=[results.id],
            tracking=ended.mlflow,
        )
        self._add_event(job, "model", f"New fine-tuned model created: {job.model_name}")
        self._add_event(job, "succeeded", "The job has successfully completed")

    def _add_result_file(self, job: JobRecord, folder: JobFolder) -> FileRecord:
        """Store the metrics of all steps as CSV; its id follows from that of the job."""
        columns = ("step", "train_loss", "train_completion_loss", "train_prompt_loss")
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow((*columns, "learning_rate"))
        for row in read_jsonl(folder.metrics, dict):
            losses = (row["loss"], row["completion_loss"], row["prompt_loss"])
            writer.writerow((row["step"], *losses, row["learning_rate"]))
        content = text.getvalue().encode()
        record = FileRecord(
            id=f"file-{job.id.removeprefix('ftjob-')}",
            owner=job.owner,
            filename="step_metrics.csv",
            purpose=RESULTS,
            bytes=len(content),
            created_at=int(time.time()),
        )
        self._files.add_results(record, content)
        return record

    def _fail(self, job: JobRecord, code: str, message: str, param: str | None) -> None:
        message = self._clean(job, message)
        self._store.update_job(
            job.id,
            status="failed",
            paused=False,
            finished_at=int(time.time()),
            estimated_finish=None,
            error={"code": code, "message": message, "param": param},
        )
        self._add_event(job, "failed", message, level="error")

    def _died(self, job: JobRecord, code: int | None) -> None:
        """Queue a job whose process ended without a result; fail it if that keeps happening.

        Deaths while the server was down (`code` None) and interruptions do not count.
        """
        if job.paused:
            return
        is_crash = code is not None and code not in _INTERRUPTED
        crashes = job.crashes + is_crash
        if crashes >= self._config.jobs.crashes:
            cause = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            self._fail(
                job,
                "process_died",
                f"The process of the job died {crashes} times without a new step, last with"
                f" {cause}; signal 9 often means that memory ran out.",
                None,
            )
            return
        self._store.update_job(job.id, status="queued", crashes=crashes)
        if is_crash:
            message = "The job's process died; the job resumes from its last checkpoint"
            self._add_event(job, f"died-{time.time_ns()}", message, level="warn")

    def _add_event(self, job: JobRecord, key: str, message: str, level: Any = "info") -> None:
        event = EventRecord(key=key, created_at=int(time.time()), level=level, message=message)
        self._store.add_events(job.id, [event])

    def _shown(self, job: JobRecord, event: EventRecord) -> EventRecord:
        data = dict(event.data)
        if "reason" in data:
            data["reason"] = self._clean(job, data["reason"])
        return event.model_copy(update={"message": self._clean(job, event.message), "data": data})

    def _clean(self, job: JobRecord, text: str) -> str:
        entry = self._config.models.get(job.model)
        names = {} if entry is None else {entry.path: job.model}
        return without_paths(text, self._folder.root, names)
