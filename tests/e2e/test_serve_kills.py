"""Jobs of `plw serve` whose processes are killed at random moments of create, train and export."""

import random
import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import pytest

from tests.e2e.killer import Killer, restarting, wait_random
from tests.e2e.plw import poll
from tests.e2e.serve import FINAL, Serve, assert_same_weights

pytestmark = pytest.mark.slow
EPOCHS = 20
# Of 40 examples in batches of 8, with a checkpoint after every second step.
NUM_STEPS = 5 * EPOCHS


@dataclass
class Kill:
    """The step of the latest checkpoint that a job had at a kill, which was at a Unix time."""

    job: str
    at: float
    checkpoint: int


@dataclass
class Ordeal:
    """A client that creates one job after the other while processes are killed."""

    serve: Serve
    training: str
    validation: str
    killer: Killer
    job_ids: list[str] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)

    def create(self, number: int) -> str:
        """Create a job, repeating the request as the official client does."""
        client = self.serve.new_client(max_retries=30)
        job = client.fine_tuning.jobs.create(
            model="tiny",
            training_file=self.training,
            validation_file=self.validation,
            seed=5,
            hyperparameters={"n_epochs": EPOCHS},
            metadata={"number": str(number)},
            extra_body={"prompt_loss_weight": 0.1},
        )
        self.job_ids.append(job.id)
        return job.id

    def create_under_fire(self, longest_s: float) -> None:
        """Kill within `longest_s` of the start of a request that creates a job."""
        thread = threading.Thread(target=self.create, args=(len(self.job_ids),))
        thread.start()
        self.strike(wait_random(self.killer.choose, longest_s), "after the start of a create")
        thread.join()

    def strike(self, waited_s: float, since: str) -> None:
        killed = self.killer.strike()
        at = time.time()
        states = []
        for folder in sorted((self.serve.folder / "data" / "jobs").iterdir()):
            complete = sorted((folder / "out" / "checkpoints").glob("step-*/COMPLETE.json"))
            latest = int(complete[-1].parent.name.removeprefix("step-")) if complete else 0
            states.append(_phase(folder, latest))
            self.kills.append(Kill(folder.name, at, latest))
        print(f"killed {killed} {waited_s:.2f} s {since}; jobs: {', '.join(states)}")

    def is_over(self) -> bool:
        """Return whether all created jobs have ended."""
        client = self.serve.new_client(max_retries=30)
        return all(client.fine_tuning.jobs.retrieve(one).status in FINAL for one in self.job_ids)


def _phase(job: Path, checkpoint: int) -> str:
    """Return what a job was doing, for people who read the output."""
    if (job / "exit.json").exists():
        return "ended"
    if (job / "out" / "train.json").exists():
        return "validating or tracking"
    if (job / "out" / "model").exists():
        return "exporting"
    return f"after checkpoint {checkpoint}" if checkpoint else "before its first checkpoint"


def undergo(tmp_path: Path, *, creates: int, others: int) -> None:
    """Kill during `creates` create requests and at `others` random moments of the jobs' lives.

    Every job must then be as if nothing had happened.
    """
    seed = secrets.randbits(32)
    print(f"seed of the kills: {seed}")
    serve = Serve(tmp_path, jobs={"niceness": 0, "crashes": 100})
    serve.start()
    training, validation = serve.upload(), serve.upload(12)
    killer = Killer(str(serve.folder), random.Random(seed))
    ordeal = Ordeal(serve, training, validation, killer)
    started = time.monotonic()
    first = ordeal.create(-1)
    create_s = time.monotonic() - started
    undisturbed = serve.wait(first)
    job_s = time.monotonic() - started
    print(f"undisturbed: create {1000 * create_s:.0f} ms, job {job_s:.1f} s")
    try:
        with restarting(serve):
            for _ in range(creates):
                ordeal.create_under_fire(2 * create_s)
            for number in range(others):
                if ordeal.is_over():
                    ordeal.create(1000 + number)
                ordeal.strike(wait_random(killer.choose, job_s), "after the last one")
            poll(ordeal.is_over, "the end of all jobs", timeout_s=600)
        check(ordeal, undisturbed.model_dump())
    finally:
        serve.close()


def check(ordeal: Ordeal, undisturbed: dict[str, object]) -> None:
    serve = ordeal.serve
    jobs = serve.client.fine_tuning.jobs
    assert sorted(job.id for job in jobs.list()) == sorted(ordeal.job_ids)
    model = serve.train_alone(
        undisturbed["train_config"],  # type: ignore[arg-type]
        ordeal.training,
        "alone",
    )
    for job_id in ordeal.job_ids:
        job = jobs.retrieve(job_id)
        assert job.status == "succeeded", job.error
        assert serve.steps(job_id) == [*range(1, NUM_STEPS + 1)]
        check_events(serve.messages(job_id), job_id)
        assert_same_weights(serve.job_folder(job_id) / "out" / "model", model)
        rows = serve.client.files.content(job.result_files[0]).text.splitlines()
        assert len(rows) == NUM_STEPS + 1
        [checkpoint] = jobs.checkpoints.list(job_id)
        assert checkpoint.metrics.full_valid_loss is not None
        kills = [kill for kill in ordeal.kills if kill.job == job_id]
        # A step that was recomputed has a later time.
        assert not [
            (row["step"], kill)
            for row in serve.metrics(job_id)
            for kill in kills
            if row["step"] <= kill.checkpoint and row["time"] > kill.at
        ]
    assert sorted(path.name for path in (serve.folder / "data" / "jobs").iterdir()) == sorted(
        ordeal.job_ids
    )
    tracked = mlflow.MlflowClient(f"sqlite:///{serve.folder / 'data' / 'mlflow.db'}")
    [experiment] = [one for one in tracked.search_experiments() if one.name == "plw-serve"]
    runs = tracked.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == sorted(ordeal.job_ids)
    assert {run.info.status for run in runs} == {"FINISHED"}
    shown = {job.metadata["mlflow_run_id"] for job in jobs.list() if job.metadata}
    assert shown == {run.info.run_id for run in runs}


def check_events(messages: list[str], job_id: str) -> None:
    for expected in (
        f"Created fine-tuning job: {job_id}",
        "The job has successfully completed",
        *(f"Step {step}/{NUM_STEPS}:" for step in range(1, NUM_STEPS + 1)),
    ):
        assert sum(message.startswith(expected) for message in messages) == 1, expected


@pytest.mark.timeout(600)
def test_kills_during_create_and_training_lose_and_repeat_nothing(tmp_path: Path) -> None:
    undergo(tmp_path, creates=1, others=2)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_ten_kills_lose_and_repeat_nothing(tmp_path: Path) -> None:
    undergo(tmp_path, creates=3, others=7)
