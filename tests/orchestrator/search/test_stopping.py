"""Points that fall behind are stopped, all seeds of one at once, and others get their slots."""

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

CONTINUE, STOP = "CONTINUE", "STOP"


@dataclass(frozen=True)
class Settings:
    method: Literal["asha", "median"] = "asha"
    first_step: int = 5
    reduction_factor: float | None = 2
    min_points: int | None = 1


@dataclass
class FakeTrial:
    """What the scheduler sees of one of Tune's trials."""

    trial_id: str
    config: dict[str, Any]
    status: str = Trial.RUNNING
    has_folder: bool = False

    def init_local_path(self) -> None:
        self.has_folder = True


@dataclass
class Sweep:
    """Tune's side: it tells the scheduler what happens and does as it is told."""

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
    scheduler = make_scheduler(Settings(**settings))
    assert scheduler is not None
    return Sweep(scheduler)


def test_without_early_stopping_there_is_no_scheduler() -> None:
    assert make_scheduler(None) is None


def test_asha_stops_a_point_below_the_best_half_at_a_rung() -> None:
    tune_ = sweep()
    good, bad, better = (tune_.add(point) for point in (0, 1, 2))
    assert tune_.report(good, 5, 1.0) == CONTINUE
    assert tune_.report(bad, 5, 2.0) == STOP
    assert tune_.report(better, 5, 0.5) == CONTINUE
    assert tune_.scheduler.stopped_points == {1}
    # Between the rungs at 5 and 10 nothing is judged, however bad it is.
    assert tune_.report(better, 8, 9.0) == CONTINUE
    assert tune_.report(good, 10, 1.0) == CONTINUE
    assert tune_.report(better, 10, 1.5) == STOP


@pytest.mark.parametrize("method", ["asha", "median"])
def test_nothing_is_stopped_before_the_first_step(method: str) -> None:
    tune_ = sweep(method=method, first_step=5)
    trials = [tune_.add(point) for point in range(4)]
    assert [tune_.report(trial, 4, loss) for loss, trial in enumerate(trials)] == [CONTINUE] * 4


@pytest.mark.parametrize(
    ("settings", "num_safe"),
    [
        ({"method": "asha", "reduction_factor": 2}, 1),
        ({"method": "asha", "reduction_factor": 2.5}, 2),
        ({"method": "asha", "reduction_factor": 4}, 3),
        ({"method": "asha", "reduction_factor": None}, 2),
        ({"method": "median", "min_points": 2}, 2),
        ({"method": "median", "min_points": None}, 3),
    ],
)
def test_the_first_points_have_too_few_beside_them_to_be_stopped(
    settings: dict[str, Any], num_safe: int
) -> None:
    tune_ = sweep(**settings)
    trials = [tune_.add(point) for point in range(6)]
    decisions = [tune_.report(trial, 5, 1.0 + point) for point, trial in enumerate(trials)]
    assert decisions == [CONTINUE] * num_safe + [STOP] * (6 - num_safe)


def test_the_median_rule_compares_the_best_loss_with_running_means() -> None:
    tune_ = sweep(method="median", min_points=2)
    one, two, three = (tune_.add(point) for point in range(3))
    for step, loss in ((5, 3.0), (10, 1.0)):
        assert tune_.report(one, step, loss) == CONTINUE
        assert tune_.report(two, step, loss + 0.5) == CONTINUE
    # The means of the others are 2.0 and 2.5 up to step 10, their median is 2.25.
    assert tune_.report(three, 5, 2.2) == CONTINUE
    assert tune_.report(three, 10, 9.0) == CONTINUE
    late = tune_.add(3)
    assert tune_.report(late, 10, 2.6) == STOP


def test_seeds_of_a_point_are_judged_by_their_mean_once_all_have_reported() -> None:
    tune_ = sweep()
    reference = tune_.add(0)
    tune_.report(reference, 5, 1.0)
    lucky, unlucky = tune_.add(1, seed=0), tune_.add(1, seed=1)
    assert tune_.report(unlucky, 5, 1.8) == CONTINUE
    assert tune_.report(lucky, 5, 0.1) == CONTINUE  # mean 0.95
    assert tune_.scheduler.stopped_points == set()
    first, second = tune_.add(2, seed=0), tune_.add(2, seed=1)
    assert tune_.report(first, 5, 1.9) == CONTINUE
    assert tune_.report(second, 5, 0.9) == STOP  # mean 1.4, worse than 0.975
    assert tune_.scheduler.is_stopped(2)
    assert tune_.report(first, 6, None) == STOP


@pytest.mark.parametrize("end", [Sweep.end, Sweep.fail])
def test_a_seed_that_ends_is_not_waited_for(end: Any) -> None:
    tune_ = sweep()
    tune_.report(tune_.add(0), 5, 1.0)
    slow, fast = tune_.add(1, seed=0), tune_.add(1, seed=1)
    assert tune_.report(fast, 5, 2.0) == CONTINUE
    assert tune_.scheduler.stopped_points == set()
    end(tune_, slow)
    assert tune_.scheduler.stopped_points == {1}
    assert tune_.report(fast, 6, None) == STOP


def test_a_seed_that_has_not_started_is_not_waited_for_and_then_does_not_start() -> None:
    tune_ = sweep()
    tune_.report(tune_.add(0), 5, 1.0)
    runs = tune_.add(1, seed=0)
    waits, other = tune_.add(1, seed=1, status=Trial.PENDING), tune_.add(2, status=Trial.PENDING)
    assert tune_.scheduler.choose_trial_to_run(tune_) is waits
    assert tune_.report(runs, 5, 2.0) == STOP
    assert tune_.scheduler.choose_trial_to_run(tune_) is other
    assert waits.status == Trial.TERMINATED
    late = tune_.add(1, seed=2, status=Trial.PENDING)
    assert tune_.scheduler.choose_trial_to_run(tune_) is other
    assert late.status == Trial.TERMINATED


def test_a_seed_that_failed_and_is_tried_again_is_waited_for_again() -> None:
    tune_ = sweep()
    tune_.report(tune_.add(0), 5, 1.0)
    steady, unsteady = tune_.add(1, seed=0), tune_.add(1, seed=1)
    tune_.fail(unsteady)
    unsteady.status = Trial.PENDING
    tune_.scheduler.on_trial_add(tune_, unsteady)
    unsteady.status = Trial.RUNNING
    assert tune_.report(steady, 5, 2.0) == CONTINUE
    assert tune_.report(unsteady, 5, 2.0) == STOP


def test_a_seed_whose_result_at_the_step_was_missed_is_not_waited_for() -> None:
    tune_ = sweep()
    tune_.report(tune_.add(0), 5, 1.0)
    seen, missed = tune_.add(1, seed=0), tune_.add(1, seed=1)
    assert tune_.report(seen, 5, 2.0) == CONTINUE
    assert tune_.report(missed, 6, None) == STOP
    assert tune_.report(seen, 6, None) == STOP


def test_a_seed_that_starts_late_does_not_judge_its_point_again() -> None:
    tune_ = sweep()
    tune_.report(tune_.add(0), 5, 1.0)
    early = tune_.add(1, seed=0)
    assert tune_.report(early, 5, 0.5) == CONTINUE
    late = tune_.add(1, seed=1)
    assert tune_.report(late, 5, 9.0) == CONTINUE
    assert tune_.report(early, 10, 0.5) == CONTINUE
    assert tune_.report(late, 10, 0.5) == CONTINUE


def test_a_trial_without_a_point_is_left_alone() -> None:
    tune_ = sweep()
    tune_.report(tune_.add(0), 5, 1.0)
    untuned = tune_.add(None)
    assert tune_.report(untuned, 5, 9.0) == CONTINUE
    assert tune_.scheduler.on_trial_result(tune_, untuned, {"done": False}) == CONTINUE
    # The point may come with the results as well.
    assert tune_.report(untuned, 5, 9.0, point=7) == STOP


def test_the_training_loss_counts_for_nothing() -> None:
    tune_ = sweep()
    tune_.report(tune_.add(0), 5, 1.0)
    other = tune_.add(1)
    result = {"step": 5, "loss": 99.0, "completion_loss": 99.0, "prompt_loss": 99.0}
    assert tune_.scheduler.on_trial_result(tune_, other, result) == CONTINUE


def test_a_seed_that_has_taken_its_last_step_gets_its_scores() -> None:
    tune_ = sweep()
    tune_.report(tune_.add(0), 10, 1.0, total_steps=20)
    trained, other = tune_.add(1, seed=0), tune_.add(1, seed=1)
    assert tune_.report(trained, 10, 3.0, total_steps=20) == CONTINUE
    assert tune_.report(trained, 20, 3.0, total_steps=20) == CONTINUE
    assert tune_.report(other, 10, 3.0, total_steps=20) == STOP
    assert tune_.report(trained, 20, 3.0, total_steps=20) == CONTINUE
    assert tune_.scheduler.stopped_points == {1}


def test_a_sweep_that_goes_on_recalls_what_it_had_judged() -> None:
    tune_ = sweep()
    tune_.scheduler.recall(0, {5: 1.0, 10: 0.9})
    tune_.scheduler.recall(1, {5: 2.0})
    assert tune_.scheduler.stopped_points == {1}
    assert tune_.report(tune_.add(2), 5, 1.5) == CONTINUE  # the median of 1.0 and 2.0
    assert tune_.report(tune_.add(3), 10, 1.5) == STOP


class Falling(tune.Trainable):
    """Six steps, each with a loss that is the number of its point."""

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
        """Nothing to keep."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""


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
        tune.with_resources(Falling, {"CPU": 1}),
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
    scheduler = make_scheduler(Settings(method=method, first_step=2))
    assert scheduler is not None
    results = run({"point": tune.grid_search(list(range(21)))}, scheduler, tmp_path)
    steps = {result.config["point"]: result.metrics["step"] for result in results}
    assert steps == {0: 6} | dict.fromkeys(range(1, 21), 2)
    assert scheduler.stopped_points == set(range(1, 21))
    assert len({result.metrics["pid"] for result in results}) == 1


@pytest.mark.slow
def test_other_seeds_of_a_stopped_point_never_start(cluster: None, tmp_path: Path) -> None:
    scheduler = make_scheduler(Settings(first_step=2))
    assert scheduler is not None
    points, seeds = tune.grid_search([0, 1, 2]), tune.grid_search([0, 1])
    # Tune varies the keys in their alphabetical order, the first one fastest.
    results = run({"a_seed": seeds, "point": points}, scheduler, tmp_path)
    assert len(results) == 6
    # One that never started has neither settings nor metrics.
    started = [result for result in results if result.config is not None]
    steps = {(r.config["point"], r.config["a_seed"]): r.metrics["step"] for r in started}
    assert steps == {(0, 0): 6, (0, 1): 6, (1, 0): 2, (2, 0): 2}
