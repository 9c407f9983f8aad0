"""Which trial comes next, when none does, and what the search is told."""

from pathlib import Path
from typing import Any

import pytest

from evals.results.scores import Score, ScoreCard
from orchestrator.plan.sweep_plan import make_plan
from orchestrator.record.folder import SweepFolder, TrialRecord
from orchestrator.search.budget import Budget
from orchestrator.spec.search_config import BudgetConfig
from orchestrator.spec.sweep_spec import SweepSpec, load_spec
from orchestrator.trials.scoring_queue import Scorers
from orchestrator.trials.sweep import prepare_folder
from orchestrator.trials.trial_queue import QueuedJob, TrialQueue
from tests.orchestrator.plan.test_plan import write_spec
from trainers.foundation.files import write_json

PLW = "loss.prompt_loss_weight"


class Bench:
    """A sweep's folder and queue, whose trials a test ends by hand."""

    def __init__(
        self,
        folder: Path,
        budget: BudgetConfig | None = None,
        *,
        scorers: Scorers | None = None,
        has_others_score: bool = True,
        **changes: Any,
    ) -> None:
        path = write_spec(folder, **changes)
        self.spec: SweepSpec = load_spec(path)
        prepared = make_plan(self.spec)
        self.folder = SweepFolder(self.spec.folder)
        prepare_folder(self.spec, prepared, path)
        self.bases = prepared.bases
        self.clock = 0.0
        self.queue = TrialQueue(
            self.spec,
            self.folder,
            prepared.planner,
            prepared.history,
            Budget(
                budget or BudgetConfig(),
                gpus_per_trial=2,
                gpus_per_scorer=0.5,
                price_per_gpu_hour=3.0,
                now=lambda: self.clock,
            ),
            scorers,
            has_others_score=has_others_score,
        )

    def next_trial(self) -> QueuedJob | None:
        """The next job that is a trial; bases are passed over."""
        while (job := self.queue.next()) is not None and job.kind == "base":
            self.queue.ended(job)
        return job

    def record(self, job: QueuedJob) -> TrialRecord:
        record = self.folder.read_trial(job.key)
        assert record is not None
        return record

    def end(self, job: QueuedJob, state: str, loss: float = 2.0, busy_seconds: float = 0.0) -> None:
        changed = {"state": state, "busy_seconds": busy_seconds}
        self.folder.write_trial(self.record(job).model_copy(update=changed))
        if state == "done":
            [base] = self.bases
            write_json(self.folder.trial(job.key) / "scores.json", card(loss, base.scoring))
        self.queue.ended(job)


def card(loss: float, signature: dict[str, Any]) -> dict[str, Any]:
    score = Score(
        name="heldout_completion_loss",
        group=None,
        value=loss,
        standard_error=0.1,
        ci_low=None,
        ci_high=None,
        num_items=8,
        higher_is_better=False,
        unit="nats per token",
        interval_method="none",
    )
    made = ScoreCard(model_path="m", scores=[score], signature=signature, seconds=1.0)
    return made.model_dump(mode="json")


def searched(bench: Bench, jobs: list[QueuedJob]) -> list[dict[str, Any]]:
    return [bench.record(job).searched for job in jobs]


def drain(bench: Bench, state: str = "done") -> list[QueuedJob]:
    """Run the queue to its end, one trial after another."""
    jobs = []
    while (job := bench.next_trial()) is not None:
        jobs.append(job)
        bench.end(job, state, loss=2.0 + len(jobs) / 10)
    return jobs


def test_the_untuned_model_is_scored_before_any_trial(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = bench.queue.next()
    assert first is not None
    assert first.kind == "base"
    assert first.untuned["model_path"] == str(tmp_path / "model")


def test_a_grid_runs_every_point_with_every_seed_and_then_ends(tmp_path: Path) -> None:
    bench = Bench(tmp_path, search={"space": {PLW: [0, 0.1]}, "seeds": [1, 2]})
    assert searched(bench, drain(bench)) == [
        {PLW: 0, "seed": 1},
        {PLW: 0, "seed": 2},
        {PLW: 0.1, "seed": 1},
        {PLW: 0.1, "seed": 2},
    ]
    assert bench.queue.end_reason is None


def test_an_excluded_point_of_a_grid_does_not_run(tmp_path: Path) -> None:
    space = {PLW: [0, 1], "loss.normalization": ["weights", "nonzero"]}
    left_out = [{PLW: 0, "loss.normalization": "nonzero"}]
    bench = Bench(tmp_path, search={"space": space, "exclude": left_out})
    assert searched(bench, drain(bench)) == [
        {PLW: 0, "loss.normalization": "weights"},
        {PLW: 1, "loss.normalization": "weights"},
        {PLW: 1, "loss.normalization": "nonzero"},
    ]


TPE = {"method": "tpe", "space": {PLW: {"low": 0, "high": 1}}, "points": 4}


def test_a_bayesian_search_begins_with_plw_0_and_1_and_chooses_the_rest(tmp_path: Path) -> None:
    bench = Bench(tmp_path, search=TPE)
    points = [point[PLW] for point in searched(bench, drain(bench))]
    assert points[:2] == [0, 1]
    assert len(points) == 4
    assert all(0 < plw < 1 for plw in points[2:])
    assert len(bench.folder.read_sweep().trial_ids) == 4


def test_a_search_that_was_cut_goes_on_with_its_open_point(tmp_path: Path) -> None:
    first = Bench(tmp_path, search=TPE)
    jobs = []
    for state in ("done", "done", "interrupted"):
        job = first.next_trial()
        assert job is not None
        first.end(job, state)
        jobs.append(job)
    again = Bench(tmp_path, search=TPE)
    rest = drain(again)
    assert rest[0].key == jobs[2].key
    assert len(rest) == 2
    assert len(set(again.folder.read_sweep().trial_ids)) == 4


def test_a_search_with_more_points_runs_only_the_new_ones(tmp_path: Path) -> None:
    done = drain(Bench(tmp_path, search=TPE))
    more = drain(Bench(tmp_path, search={**TPE, "points": 6}))
    assert len(more) == 2
    assert {job.key for job in more} & {job.key for job in done} == set()


def test_no_trial_is_recorded_before_the_search_has_asked_for_it(tmp_path: Path) -> None:
    drain(Bench(tmp_path, search=TPE))
    more = Bench(tmp_path, search={**TPE, "points": 6})
    assert len(more.folder.read_sweep().trial_ids) == 4
    drain(more)
    assert [trial.state for trial in more.folder.read_trials()] == ["done"] * 6


def test_another_seed_runs_the_points_that_are_known_again_with_it_alone(tmp_path: Path) -> None:
    one = {**TPE, "seeds": [0]}
    done = drain(Bench(tmp_path, search=one))
    both = Bench(tmp_path, search={**TPE, "seeds": [0, 1]})
    more = drain(both)
    assert len(more) == 4
    assert [point["seed"] for point in searched(both, more)] == [1, 1, 1, 1]
    assert {job.key for job in more} & {job.key for job in done} == set()


def test_trials_of_another_sweep_inform_this_one_and_are_not_run_again(tmp_path: Path) -> None:
    drain(Bench(tmp_path, search=TPE, output_dir=str(tmp_path / "first")))
    other = Bench(
        tmp_path,
        search={**TPE, "learn_from": [str(tmp_path / "first")]},
        output_dir=str(tmp_path / "second"),
    )
    points = [point[PLW] for point in searched(other, drain(other))]
    assert len(points) == 4
    assert 0 not in points
    assert 1 not in points


def test_a_failed_trial_does_not_stop_the_others(tmp_path: Path) -> None:
    assert len(drain(Bench(tmp_path, search=TPE), state="failed")) == 4


def test_the_seeds_of_a_point_that_was_given_up_do_not_start(tmp_path: Path) -> None:
    bench = Bench(tmp_path, search={"space": {PLW: [0, 0.1]}, "seeds": [1, 2]})
    first = bench.next_trial()
    assert first is not None
    bench.folder.write_trial(bench.record(first).model_copy(update={"state": "training"}))
    bench.queue.ended(first)
    rest = drain(bench)
    assert [point[PLW] for point in searched(bench, rest)] == [0.1, 0.1]
    assert [trial.state for trial in bench.folder.read_trials()] == [
        "stopped",
        "stopped",
        "done",
        "done",
    ]


def test_no_trial_starts_once_a_stop_is_asked_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.next_trial() is not None
    bench.folder.request_stop(None)
    assert bench.next_trial() is None
    assert bench.queue.end_reason == "it was asked to stop"


def test_a_trial_that_is_asked_to_stop_before_it_starts_is_passed_over(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    last = bench.folder.read_trials()[-1]
    bench.folder.request_stop(last.id)
    assert [job.key for job in drain(bench)] == [bench.folder.read_trials()[0].id]


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        ({"trials": 1}, "search.budget.trials is spent: 1 of 1"),
        ({"gpu_hours": 1.5}, "search.budget.gpu_hours is spent: 2 of 1.5"),
        ({"money": 5.0}, "search.budget.money is spent: 6 of 5"),
        ({"hours": 0.5}, "search.budget.hours is spent: 1 of 0.5"),
    ],
)
def test_a_spent_budget_starts_no_further_trial(
    tmp_path: Path, budget: dict[str, Any], reason: str
) -> None:
    bench = Bench(tmp_path, BudgetConfig(**budget))
    job = bench.next_trial()
    assert job is not None
    bench.clock = 3600
    bench.end(job, "done", busy_seconds=3600)
    assert bench.next_trial() is None
    assert bench.queue.end_reason == reason
