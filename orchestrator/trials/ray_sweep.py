"""Run the jobs of a sweep through Ray Tune, in the order of the queue."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import Any

from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from orchestrator.record.folder import SweepFolder
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.trials.actor_reuse import keep_idle_actors
from orchestrator.trials.placement import DRIVER_RESOURCE, Cluster, gpus_per_worker, trial_slots
from orchestrator.trials.ray_launch import RankSettings
from orchestrator.trials.trial_driver import TrialDriver
from orchestrator.trials.trial_queue import QueuedJob, TrialQueue

DRIVER_MEMORY_BYTES = 100 * 2**20
# Maximum number of restarts of a trial whose driver, or the driver's node, has died.
DRIVER_FAILURES = 3
POLL_S = 0.2


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
    resources = spec.resources
    ranks = RankSettings(
        root=str(folder.root),
        evals=spec.evals.model_dump(mode="json"),
        num_workers=resources.workers_per_trial,
        cpus_per_worker=resources.cpus_per_worker,
        gpus_per_worker=gpus_per_worker(resources, cluster),
        retries=spec.retries.model_dump(),
        storage_uri=spec.storage_uri,
    )
    # A driver only waits, so it reserves no cores. Tune requires a reservation; the smallest that
    # it accepts is some memory.
    reservation: dict[str, float] = {"memory": DRIVER_MEMORY_BYTES}
    if cluster.has_driver_nodes:
        reservation[DRIVER_RESOURCE] = 0.001
    # Jobs have their own records, so Tune's files would only cost time.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    num_slots = trial_slots(resources, cluster)
    # By default, Tune starts one driver at a time if it has a searcher. This fills all slots at
    # once.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(num_slots)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(driver, ranks=ranks), reservation),
        tune_config=tune.TuneConfig(
            search_alg=_QueueSearcher(queue),
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=num_slots,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=f"tune-{os.getpid()}",
            storage_path=str(folder.root / "ray" / "tune"),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=DRIVER_FAILURES),
            callbacks=[_ScoringCallback(queue)],
        ),
    )
    with _interrupts(on_interrupt), keep_idle_actors():
        tuner.fit()
        while queue.is_scoring:
            queue.poll_scoring()
            time.sleep(POLL_S)


class _QueueSearcher(Searcher):  # type: ignore[misc]
    """Searcher that returns the queue's jobs; the sweep's folder contains its state."""

    def __init__(self, queue: TrialQueue) -> None:
        super().__init__(metric="done", mode="max")
        self._queue = queue
        self._jobs: dict[str, QueuedJob] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        job = self._queue.next()
        if job is None:
            return str(Searcher.FINISHED)
        self._jobs[trial_id] = job
        return asdict(job)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._queue.job_ended(self._jobs.pop(trial_id), has_died=error)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Save nothing: a sweep resumes from its own record."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its tuner to restore it later, which is never needed here.
        return {}

    def get_state(self) -> dict[str, Any]:
        return {}


class _ScoringCallback(tune.Callback):  # type: ignore[misc]
    """Polls the scorers in each round of Tune's loop, even if Tune requests no trial."""

    def __init__(self, queue: TrialQueue) -> None:
        self._queue = queue

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._queue.poll_scoring()

    def __getstate__(self) -> dict[str, Any]:
        # Return no state, as in `_QueueSearcher`.
        return {}


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
