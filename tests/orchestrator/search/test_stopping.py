"""Early stopping: points stop with all of their seeds, and others get their slots."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import ray
from ray import tune
from ray.tune.experiment import Trial

from orchestrator.search.stopping import PointScheduler, make_scheduler
from orchestrator.spec.search_fields import EarlyStopping

CONTINUE, STOP = "CONTINUE", "STOP"


@dataclass
class FakeTrial:
    """The attributes of a Ray Tune trial that the scheduler uses."""

    trial_id: str
    config: dict[str, Any]
    status: str = Trial.RUNNING
    has_folder: bool = False

    def init_local_path(self) -> None:
        self.has_folder = True


@dataclass
class Sweep:
    """A fake Ray Tune controller that calls the scheduler and applies its decisions."""

    scheduler: PointScheduler
    trials: list[FakeTrial] = field(default_factory=list)

    def add(self, point: int | None, seed: int = 0, status: str = Trial.RUNNING) -> FakeTrial:
        trial = FakeTrial(f"{point}-{seed}", {"point": point}, status)
        self.trials.append(trial)
        self.scheduler.on_trial_add(self, trial)
        return trial

    def report(self, trial: FakeTrial, step: int, loss: float | None, **more: Any) -> str:
        result = {"step": step, "heldout_completion_loss": loss, **more}
        decision = self.scheduler.on_trial_result(self, trial, result)
        if decision == STOP:
            self.end(trial)
        return decision

    def end(self, trial: FakeTrial) -> None:
        self.scheduler.on_trial_complete(self, trial, {})
        trial.status = Trial.TERMINATED

    def fail(self, trial: FakeTrial) -> None:
        self.scheduler.on_trial_error(self, trial)
        trial.status = Trial.ERROR

    def get_trials(self) -> list[FakeTrial]:
        return self.trials

    def stop_trial(self, trial: FakeTrial) -> None:
        assert trial.status == Trial.PENDING
        assert trial.has_folder
        self.scheduler.on_trial_remove(self, trial)
        trial.status = Trial.TERMINATED


def sweep(**settings: Any) -> Sweep:
    defaults = {"method": "asha", "first_step": 5, "reduction_factor": 2, "min_points": 1}
    return Sweep(scheduler_of(**defaults | settings))


def scheduler_of(**settings: Any) -> PointScheduler:
    scheduler = make_scheduler(EarlyStopping.model_validate(settings))
    assert scheduler is not None
    return scheduler


def test_without_early_stopping_there_is_no_scheduler() -> None:
    assert make_scheduler(None) is None


def test_asha_stops_a_point_below_the_best_half_at_a_rung() -> None:
    fake = sweep()
    good, bad, better = (fake.add(point) for point in (0, 1, 2))
    assert fake.report(good, 5, 1.0) == CONTINUE
    assert fake.report(bad, 5, 2.0) == STOP
    assert fake.report(better, 5, 0.5) == CONTINUE
    assert fake.scheduler.stopped_points == {1}
    # Between the rungs at 5 and 10 no loss is judged.
    assert fake.report(better, 8, 9.0) == CONTINUE
    assert fake.report(good, 10, 1.0) == CONTINUE
    assert fake.report(better, 10, 1.5) == STOP


@pytest.mark.parametrize("method", ["asha", "median"])
def test_no_point_is_stopped_before_the_first_step(method: str) -> None:
    fake = sweep(method=method, first_step=5)
    trials = [fake.add(point) for point in range(4)]
    assert [fake.report(trial, 4, loss) for loss, trial in enumerate(trials)] == [CONTINUE] * 4


@pytest.mark.parametrize(
    ("settings", "num_running"),
    [
        ({"method": "asha", "reduction_factor": 2}, 1),
        ({"method": "asha", "reduction_factor": 2.5}, 2),
        ({"method": "asha", "reduction_factor": 4}, 3),
        ({"method": "asha", "reduction_factor": 3}, 2),
        ({"method": "median", "min_points": 2}, 2),
        ({"method": "median", "min_points": 3}, 3),
    ],
)
def test_no_point_is_stopped_while_there_are_too_few_others(
    settings: dict[str, Any], num_running: int
) -> None:
    fake = sweep(**settings)
    trials = [fake.add(point) for point in range(6)]
    decisions = [fake.report(trial, 5, 1.0 + point) for point, trial in enumerate(trials)]
    assert decisions == [CONTINUE] * num_running + [STOP] * (6 - num_running)


def test_the_median_rule_compares_the_best_loss_with_running_means() -> None:
    fake = sweep(method="median", min_points=2)
    one, two, three = (fake.add(point) for point in range(3))
    for step, loss in ((5, 3.0), (10, 1.0)):
        assert fake.report(one, step, loss) == CONTINUE
        assert fake.report(two, step, loss + 0.5) == CONTINUE
    # Up to step 10 the means of the others are 2.0 and 2.5, with median 2.25.
    assert fake.report(three, 5, 2.2) == CONTINUE
    assert fake.report(three, 10, 9.0) == CONTINUE
    late = fake.add(3)
    assert fake.report(late, 10, 2.6) == STOP


def test_a_point_is_judged_by_the_mean_of_its_seeds_once_all_have_reported() -> None:
    fake = sweep()
    reference = fake.add(0)
    fake.report(reference, 5, 1.0)
    lucky, unlucky = fake.add(1, seed=0), fake.add(1, seed=1)
    assert fake.report(unlucky, 5, 1.8) == CONTINUE
    assert fake.report(lucky, 5, 0.1) == CONTINUE  # mean 0.95
    assert fake.scheduler.stopped_points == set()
    first, second = fake.add(2, seed=0), fake.add(2, seed=1)
    assert fake.report(first, 5, 1.9) == CONTINUE
    assert fake.report(second, 5, 0.9) == STOP  # mean 1.4, worse than 0.975
    assert fake.scheduler.is_stopped(2)
    assert fake.report(first, 6, None) == STOP


@pytest.mark.parametrize("end", [Sweep.end, Sweep.fail])
def test_an_ended_seed_is_not_waited_for(end: Any) -> None:
    fake = sweep()
    fake.report(fake.add(0), 5, 1.0)
    slow, fast = fake.add(1, seed=0), fake.add(1, seed=1)
    assert fake.report(fast, 5, 2.0) == CONTINUE
    assert fake.scheduler.stopped_points == set()
    end(fake, slow)
    assert fake.scheduler.stopped_points == {1}
    assert fake.report(fast, 6, None) == STOP


def test_a_pending_seed_is_not_waited_for_and_does_not_start_once_its_point_stops() -> None:
    fake = sweep()
    fake.report(fake.add(0), 5, 1.0)
    running = fake.add(1, seed=0)
    pending, other = fake.add(1, seed=1, status=Trial.PENDING), fake.add(2, status=Trial.PENDING)
    assert fake.scheduler.choose_trial_to_run(fake) is pending
    assert fake.report(running, 5, 2.0) == STOP
    assert fake.scheduler.choose_trial_to_run(fake) is other
    assert pending.status == Trial.TERMINATED
    late = fake.add(1, seed=2, status=Trial.PENDING)
    assert fake.scheduler.choose_trial_to_run(fake) is other
    assert late.status == Trial.TERMINATED


def test_a_retried_seed_is_waited_for_again() -> None:
    fake = sweep()
    fake.report(fake.add(0), 5, 1.0)
    steady, unsteady = fake.add(1, seed=0), fake.add(1, seed=1)
    fake.fail(unsteady)
    unsteady.status = Trial.PENDING
    fake.scheduler.on_trial_add(fake, unsteady)
    unsteady.status = Trial.RUNNING
    assert fake.report(steady, 5, 2.0) == CONTINUE
    assert fake.report(unsteady, 5, 2.0) == STOP


def test_a_seed_with_a_missed_result_is_not_waited_for() -> None:
    fake = sweep()
    fake.report(fake.add(0), 5, 1.0)
    seen, missed = fake.add(1, seed=0), fake.add(1, seed=1)
    assert fake.report(seen, 5, 2.0) == CONTINUE
    assert fake.report(missed, 6, None) == STOP
    assert fake.report(seen, 6, None) == STOP


def test_a_late_seed_does_not_cause_a_second_judgement() -> None:
    fake = sweep()
    fake.report(fake.add(0), 5, 1.0)
    early = fake.add(1, seed=0)
    assert fake.report(early, 5, 0.5) == CONTINUE
    late = fake.add(1, seed=1)
    assert fake.report(late, 5, 9.0) == CONTINUE
    assert fake.report(early, 10, 0.5) == CONTINUE
    assert fake.report(late, 10, 0.5) == CONTINUE


def test_a_trial_without_a_point_is_never_stopped() -> None:
    fake = sweep()
    fake.report(fake.add(0), 5, 1.0)
    untuned = fake.add(None)
    assert fake.report(untuned, 5, 9.0) == CONTINUE
    assert fake.scheduler.on_trial_result(fake, untuned, {"done": False}) == CONTINUE
    # Results can contain the point as well.
    assert fake.report(untuned, 5, 9.0, point=7) == STOP


def test_the_training_loss_is_ignored() -> None:
    fake = sweep()
    fake.report(fake.add(0), 5, 1.0)
    other = fake.add(1)
    result = {"step": 5, "loss": 99.0, "completion_loss": 99.0, "prompt_loss": 99.0}
    assert fake.scheduler.on_trial_result(fake, other, result) == CONTINUE


@pytest.mark.parametrize(("method", "at_10"), [("asha", STOP), ("median", CONTINUE)])
def test_points_of_an_earlier_run_count_at_their_steps(method: str, at_10: str) -> None:
    fake = sweep(method=method)
    # ASHA would stop the second point at step 5. Its loss at step 10 must still be recorded.
    fake.scheduler.restore([{5: 1.0, 10: 0.9}, {5: 3.0, 10: 0.95}])
    good, bad = fake.add(0), fake.add(1)
    assert fake.report(good, 5, 0.97) == CONTINUE
    assert fake.report(bad, 5, 2.5) == STOP
    # Worse than both at the rung, but its best loss is below their median running mean, 1.46.
    assert fake.report(good, 10, 0.96) == at_10


def test_a_seed_at_its_last_step_is_not_stopped() -> None:
    fake = sweep()
    fake.report(fake.add(0), 10, 1.0, total_steps=20)
    trained, other = fake.add(1, seed=0), fake.add(1, seed=1)
    assert fake.report(trained, 10, 3.0, total_steps=20) == CONTINUE
    assert fake.report(trained, 20, 3.0, total_steps=20) == CONTINUE
    assert fake.report(other, 10, 3.0, total_steps=20) == STOP
    assert fake.report(trained, 20, 3.0, total_steps=20) == CONTINUE
    assert fake.scheduler.stopped_points == {1}


class SixSteps(tune.Trainable):
    """Six steps with a loss equal to the number of the point."""

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._point, self._taken = new_config["point"], 0
        return True

    def step(self) -> dict[str, Any]:
        self._taken += 1
        return {
            "done": self._taken == 6,
            "step": self._taken,
            "total_steps": 6,
            "point": self._point,
            "heldout_completion_loss": float(self._point),
            "pid": os.getpid(),
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Load nothing."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


def run(space: dict[str, Any], scheduler: PointScheduler, folder: Path) -> list[Any]:
    tuner = tune.Tuner(
        tune.with_resources(SixSteps, {"CPU": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(
            max_concurrent_trials=1, reuse_actors=True, scheduler=scheduler
        ),
        run_config=tune.RunConfig(name="stops", storage_path=str(folder), verbose=0),
    )
    started = time.monotonic()
    results = tuner.fit()
    assert time.monotonic() - started < 120
    assert not results.errors
    return list(results)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["asha", "median"])
def test_twenty_stopped_points_in_a_row_free_the_only_slot(
    cluster: None, method: Literal["asha", "median"], tmp_path: Path
) -> None:
    scheduler = scheduler_of(method=method, first_step=2, reduction_factor=2, min_points=1)
    results = run({"point": tune.grid_search(list(range(21)))}, scheduler, tmp_path)
    steps = {result.config["point"]: result.metrics["step"] for result in results}
    assert steps == {0: 6} | dict.fromkeys(range(1, 21), 2)
    assert scheduler.stopped_points == set(range(1, 21))
    assert len({result.metrics["pid"] for result in results}) == 1


@pytest.mark.slow
def test_other_seeds_of_a_stopped_point_never_start(cluster: None, tmp_path: Path) -> None:
    scheduler = scheduler_of(method="asha", first_step=2, reduction_factor=2)
    points, seeds = tune.grid_search([0, 1, 2]), tune.grid_search([0, 1])
    # Tune varies the keys in alphabetical order, the first one fastest.
    results = run({"a_seed": seeds, "point": points}, scheduler, tmp_path)
    assert len(results) == 6
    # A trial that never started has neither config nor metrics.
    started = [result for result in results if result.config is not None]
    steps = {(r.config["point"], r.config["a_seed"]): r.metrics["step"] for r in started}
    assert steps == {(0, 0): 6, (0, 1): 6, (1, 0): 2, (2, 0): 2}
