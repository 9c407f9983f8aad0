"""The trials of a sweep through Ray Tune: which run when, and what happens to each."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from orchestrator.address import no_cluster
from orchestrator.mailbox import Progress
from orchestrator.ray_launch import WarmRanks
from orchestrator.record import SweepFolder, TrialRecord
from orchestrator.run_trial import failed, scored, started, train_result, trained
from orchestrator.spec import SweepSpec
from trainers.errors import InputError, Problem

if TYPE_CHECKING:
    # Types only: the actors that import this module need no transformers.
    from orchestrator.planner import Base

# What stands before the key of a base whose untuned model is to be scored.
UNTUNED = "untuned:"
DRIVER_MEMORY_BYTES = 100 * 2**20


@dataclass(frozen=True)
class Cluster:
    """What a Ray cluster has now; one that is not on this machine alone may add nodes later."""

    resources: dict[str, float]
    is_local: bool


@contextmanager
def ray_cluster(address: str | None, num_cpus: int) -> Iterator[Cluster]:
    """Connect to the cluster at `address`, or start one on this machine.

    Raises:
        InputError: no cluster answers at the address, or it refuses us.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ranks that import torch and DeepSpeed on a busy machine need longer than Ray's minute.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
    local = {"num_cpus": num_cpus, "include_dashboard": False} if address is None else {}
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={
                "env_vars": {
                    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
                    "TOKENIZERS_PARALLELISM": "false",
                }
            },
            **local,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address is None:
            raise
        reason = str(error).strip().splitlines()[0]
        raise no_cluster(address, reason) from error
    try:
        yield Cluster(ray.cluster_resources(), is_local=address is None)
    finally:
        ray.shutdown()


def gpus_per_worker(spec: SweepSpec, cluster: Cluster) -> float:
    """The spec's GPUs for one rank, or 1 where the cluster has any and the spec is silent."""
    if spec.resources.gpus_per_worker is not None:
        return spec.resources.gpus_per_worker
    return 1.0 if cluster.resources.get("GPU", 0) > 0 else 0.0


def slots(spec: SweepSpec, cluster: Cluster) -> int:
    """Trials that fit into the cluster at once.

    A cluster that adds nodes on demand may have none yet: with both a number of trials and the
    GPUs of a worker in the spec, it is taken at its word and trials wait for their nodes.

    Raises:
        InputError: not even one fits.
    """
    resources = spec.resources
    limit = resources.max_concurrent_trials
    if not cluster.is_local and limit is not None and resources.gpus_per_worker is not None:
        return limit
    needs = {
        "CPU": float(resources.workers_per_trial * resources.cpus_per_worker),
        "GPU": resources.workers_per_trial * gpus_per_worker(spec, cluster),
    }
    problems = [
        Problem(
            message=f"a trial needs {need:g} {kind}s ({resources.workers_per_trial} workers), "
            f"but the cluster has {cluster.resources.get(kind, 0):g}",
            fix="lower resources.workers_per_trial or the resources of a worker; for a cluster "
            "that adds nodes on demand, set resources.max_concurrent_trials and gpus_per_worker",
        )
        for kind, need in needs.items()
        if need > cluster.resources.get(kind, 0)
    ]
    if problems:
        raise InputError(problems)
    have = cluster.resources
    fitting = min(int(have[kind] // need) for kind, need in needs.items() if need > 0)
    return min(fitting, limit or fitting)


def run_trials(
    spec: SweepSpec,
    folder: SweepFolder,
    bases: "Sequence[Base]",
    trial_ids: Sequence[str],
    cluster: Cluster,
    on_interrupt: Callable[[], None],
) -> None:
    """Score the untuned models of `bases` and run the trials that are given to their ends.

    A trial that fails is recorded as failed and does not stop the others. A first Ctrl-C ends
    the running ones after a call of `on_interrupt`, a second one raises KeyboardInterrupt.
    """
    resources = spec.resources
    context = {
        "root": str(folder.root),
        "evals": spec.evals.model_dump(mode="json"),
        "untuned": {
            base.key: {"settings": base.settings, "model_path": base.model_path} for base in bases
        },
        "num_workers": resources.workers_per_trial,
        "cpus_per_worker": resources.cpus_per_worker,
        "gpus_per_worker": gpus_per_worker(spec, cluster),
        "max_failures": resources.max_failures,
    }
    # The driver of a trial only waits, so it leaves all cores to the ranks. Tune insists on a
    # reservation, and the least that it takes is some memory.
    trainable = tune.with_resources(
        tune.with_parameters(TrialDriver, context=context), {"memory": DRIVER_MEMORY_BYTES}
    )
    tuner = tune.Tuner(
        trainable,
        param_space={
            "trial_id": tune.grid_search([*(f"{UNTUNED}{base.key}" for base in bases), *trial_ids])
        },
        tune_config=tune.TuneConfig(max_concurrent_trials=slots(spec, cluster), reuse_actors=True),
        run_config=tune.RunConfig(
            name=f"tune-{os.getpid()}",
            storage_path=str(folder.root / "ray" / "tune"),
            verbose=0,
            stop=_StopOnInterrupt(),
        ),
    )
    with _interrupts(on_interrupt):
        tuner.fit()


_interrupted = threading.Event()


class _StopOnInterrupt(tune.Stopper):  # type: ignore[misc]
    """Ends the sweep once Ctrl-C was pressed. Without a state: Tune pickles it."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return _interrupted.is_set()

    def stop_all(self) -> bool:
        return _interrupted.is_set()


@contextmanager
def _interrupts(on_interrupt: Callable[[], None]) -> Iterator[None]:
    def handle(signum: int, frame: FrameType | None) -> None:
        _interrupted.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        on_interrupt()

    # Tune's own handler says nothing until everything has ended.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    _interrupted.clear()
    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


class TrialDriver(tune.Trainable):  # type: ignore[misc]
    """Drives one trial after another on warm ranks; one `step` is one report of a trial.

    Tune keeps the actor between trials (`reuse_actors`), and the actor keeps its ranks.
    """

    def setup(self, config: dict[str, Any], context: dict[str, Any]) -> None:
        self._folder = SweepFolder(Path(context["root"]))
        self._context = context
        self._ranks: WarmRanks | None = None
        self._seen: dict[str, Any] = {}
        self._begin(config["trial_id"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config["trial_id"])
        return True

    def step(self) -> dict[str, Any]:
        if not self._is_given:
            self._give()
        assert self._ranks is not None
        progress = self._ranks.wait(self._seen)
        self._seen = progress.metrics
        self._is_running = not progress.is_finished
        self._follow(progress)
        if progress.is_finished and progress.error is not None:
            raise RuntimeError(progress.error)
        loss = progress.metrics.get("completion_loss")
        return {"done": progress.is_finished, "completion_loss": loss}

    def cleanup(self) -> None:
        if self._ranks is not None:
            # Ranks in the middle of a trial end with Ray: their checkpoints are safe.
            self._ranks.close(wait=not self._is_running)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep: the ranks write their own checkpoints into the trial's folder."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load: a trial that runs again resumes from its own checkpoints."""

    def _begin(self, trial_id: str) -> None:
        is_untuned = trial_id.startswith(UNTUNED)
        self._trial_id = None if is_untuned else trial_id
        self._base = trial_id.removeprefix(UNTUNED) if is_untuned else None
        self._is_given = False
        self._is_running = False
        self._seen = {}

    def _give(self) -> None:
        context = self._context
        if self._ranks is None:
            self._ranks = WarmRanks(
                root=self._folder.root,
                name=f"ranks-{os.getpid()}",
                evals=context["evals"],
                num_workers=context["num_workers"],
                cpus_per_worker=context["cpus_per_worker"],
                gpus_per_worker=context["gpus_per_worker"],
                max_failures=context["max_failures"],
            )
        self._is_given = self._is_running = True
        if self._base is not None:
            self._ranks.give(
                kind="untuned", trial_id=None, base=self._base, **context["untuned"][self._base]
            )
            return
        record = self._record()
        # Scoring a finished trial anew is no further attempt at it.
        self._num_earlier = record.attempts - (record.state == "done")
        self._folder.write_trial(started(record))
        self._ranks.give(
            kind="trial",
            trial_id=record.id,
            base=record.base,
            settings=record.settings,
            model_path=str(self._folder.model(record.id)),
        )

    def _follow(self, progress: Progress) -> None:
        """Bring the trial's record up to what is known of it."""
        if self._trial_id is None:
            return
        record = self._record()
        result = train_result(self._folder.root, record.id)
        attempts = self._num_earlier + progress.attempts
        if progress.is_finished and progress.error is not None:
            self._folder.write_trial(failed(record, progress.error, attempts))
        elif progress.is_finished:
            assert result is not None
            card = self._folder.read_scores(record.id)
            assert card is not None
            record = trained(record, result)
            self._folder.write_trial(scored(record, card.seconds, attempts))
        elif result is not None or progress.metrics.get("step") == record.total_steps:
            self._folder.write_trial(record.model_copy(update={"state": "scoring"}))

    def _record(self) -> TrialRecord:
        assert self._trial_id is not None
        record = self._folder.read_trial(self._trial_id)
        assert record is not None
        return record
