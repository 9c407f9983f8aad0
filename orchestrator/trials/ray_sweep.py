"""The jobs of a sweep through Ray Tune: it places them, the queue says which is next."""

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
from orchestrator.trials.idle_actors import all_idle_actors_kept
from orchestrator.trials.placement import DRIVER_RESOURCE, Cluster, gpus_per_worker, slots
from orchestrator.trials.ray_launch import RankSettings
from orchestrator.trials.trial_driver import TrialDriver
from orchestrator.trials.trial_queue import QueuedJob, TrialQueue

DRIVER_MEMORY_BYTES = 100 * 2**20
# Times that a driver which dies, or the node under it, is started again for one trial.
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
    """Run the queue's jobs to their ends, each by an actor of class `driver`.

    A trial that fails is recorded as failed and does not stop the others. A first Ctrl-C calls
    `on_interrupt`, which may ask the folder's trials to stop; a second one raises
    KeyboardInterrupt.
    """
    resources = spec.resources
    ranks = RankSettings(
        root=str(folder.root),
        evals=spec.evals.model_dump(mode="json"),
        num_workers=resources.workers_per_trial,
        cpus_per_worker=resources.cpus_per_worker,
        gpus_per_worker=gpus_per_worker(resources, cluster),
        retries=spec.retries.model_dump(),
        stored_at=spec.stored_at,
    )
    # The driver of a trial only waits, so it leaves all cores to the ranks. Tune insists on a
    # reservation, and the least that it takes is some memory.
    reservation: dict[str, float] = {"memory": DRIVER_MEMORY_BYTES}
    if cluster.has_driver_nodes:
        reservation[DRIVER_RESOURCE] = 0.001
    # A job's record is ours and its results are few: Tune's own files would only cost time.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    num_slots = slots(resources, cluster)
    # With a searcher Tune starts one driver after another; ours fill all slots at once.
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
            callbacks=[_ScoringFollower(queue)],
        ),
    )
    with _interrupts(on_interrupt), all_idle_actors_kept():
        tuner.fit()
        while queue.is_scoring:
            queue.follow_scoring()
            time.sleep(POLL_S)


class _QueueSearcher(Searcher):  # type: ignore[misc]
    """Tune's view of the queue. Keeps no state in Tune's files: ours is the sweep's folder."""

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
        self._queue.ended(self._jobs.pop(trial_id))

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: a sweep goes on from its own record."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes its tuner to disk before it starts, for a restore that we never ask for.
        return {}

    def get_state(self) -> dict[str, Any]:
        return {}


class _ScoringFollower(tune.Callback):  # type: ignore[misc]
    """Looks after the scorers in each round of Tune's loop, also while no trial is asked for."""

    def __init__(self, queue: TrialQueue) -> None:
        self._queue = queue

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._queue.follow_scoring()

    def __getstate__(self) -> dict[str, Any]:
        # As the searcher: not for a restore.
        return {}


@contextmanager
def _interrupts(on_interrupt: Callable[[], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        on_interrupt()

    # Tune's own handler says nothing until everything has ended.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
