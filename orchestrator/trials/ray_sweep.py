"""Run the jobs of a sweep through Ray Tune, in the order of the queue."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from types import FrameType
from typing import Any

from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from orchestrator.record.folder import SweepFolder
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.trials.actor_reuse import keep_idle_actors
from orchestrator.trials.placement import (
    Cluster,
    capacity,
    cpus_per_scorer,
    gpus_per_scorer,
    gpus_per_worker,
    is_packed,
)
from orchestrator.trials.queued_job import QueuedJob
from orchestrator.trials.trial_driver import TrialDriver, driver_resources
from orchestrator.trials.trial_queue import TrialQueue
from orchestrator.trials.workers import WorkerSettings

log = logging.getLogger(__name__)

# Maximum number of restarts of a trial whose driver, or the driver's node, has died.
DRIVER_FAILURES = 3


def run_jobs(
    spec: SweepSpec,
    folder: SweepFolder,
    queue: TrialQueue,
    cluster: Cluster,
    scheduler: TrialScheduler | None,
    on_interrupt: Callable[[], None],
    driver: type[TrialDriver] = TrialDriver,
) -> None:
    """Run all jobs of the queue, each in an actor of class `driver`.

    A failed trial is recorded as failed and does not stop the others. The first Ctrl-C calls
    `on_interrupt`, the second one raises KeyboardInterrupt.
    """
    settings = worker_settings(spec, folder, cluster)
    # Jobs have their own records, so Tune's files would only cost time.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    # Tune's newer output prints a table with 2**63 - 1 trials, although it is asked to be silent.
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    fitting = capacity(spec.resources, cluster)
    num_drivers = fitting.slots + fitting.scorers
    # By default, Tune starts one driver at a time if it has a searcher. This starts all at once.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(num_drivers)
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(driver, settings=settings),
            partial(driver_resources, settings=settings, on_driver_node=cluster.has_driver_nodes),
        ),
        tune_config=tune.TuneConfig(
            search_alg=_QueueSearcher(queue),
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=num_drivers,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=f"tune-{os.getpid()}",
            storage_path=str(folder.root / "ray" / "tune"),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=DRIVER_FAILURES),
        ),
    )
    with _interrupts(on_interrupt), keep_idle_actors():
        tuner.fit()


def worker_settings(spec: SweepSpec, folder: SweepFolder, cluster: Cluster) -> WorkerSettings:
    """Return the settings of the drivers' workers."""
    resources = spec.resources
    return WorkerSettings(
        root=str(folder.root),
        evals=spec.evals.model_dump(mode="json"),
        num_workers=resources.workers_per_trial,
        cpus_per_worker=resources.cpus_per_worker,
        gpus_per_worker=gpus_per_worker(resources, cluster),
        cpus_per_scorer=cpus_per_scorer(resources),
        gpus_per_scorer=gpus_per_scorer(resources, cluster),
        retries=spec.retries.model_dump(),
        is_packed=is_packed(resources, cluster),
        storage_uri=spec.storage_uri,
    )


class _QueueSearcher(Searcher):  # type: ignore[misc]
    """Searcher that returns the queue's jobs; the sweep's folder contains its state."""

    def __init__(self, queue: TrialQueue) -> None:
        super().__init__(metric="done", mode="max")
        self._queue = queue
        self._jobs: dict[str, QueuedJob] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        job = self._queue.next()
        if job is None:
            return str(Searcher.FINISHED) if self._queue.is_finished else None
        self._jobs[trial_id] = job
        return asdict(job)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if (error := result.get("retried")) is not None:
            log.warning("%s failed, retrying: %s", _name(self._jobs[trial_id]), error)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        job, result = self._jobs.pop(trial_id), result or {}
        if (reason := result.get("failed")) is not None:
            log.warning("%s failed, giving up: %s", _name(job), reason)
        self._queue.job_ended(job, record=result.get("record"), has_died=error)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Save nothing: a sweep resumes from its own record."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its tuner to restore it later, which is never needed here.
        return {}

    def get_state(self) -> dict[str, Any]:
        return {}


def _name(job: QueuedJob) -> str:
    """Return what a job does, for the log."""
    if job.kind == "base":
        return f"scoring base {job.key}"
    return f"scoring trial {job.key}" if job.kind == "scoring" else f"trial {job.key}"


@contextmanager
def _interrupts(on_interrupt: Callable[[], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        on_interrupt()

    # Disable Tune's handler, which prints nothing until everything has ended.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
