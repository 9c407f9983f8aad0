"""The order of trials, the reasons why none starts, and the reports to the search."""

from pathlib import Path
from typing import Any

import pytest

from evals.results.scores import Score, ScoreCard
from orchestrator.plan.history import observe
from orchestrator.plan.sweep_plan import make_plan
from orchestrator.record.folder import SweepFolder, TrialRecord
from orchestrator.search.budget import Budget
from orchestrator.spec.search_fields import BudgetConfig
from orchestrator.spec.sweep_spec import SweepSpec, load_spec
from orchestrator.trials.queued_job import QueuedJob
from orchestrator.trials.run_trial import mark_failed
from orchestrator.trials.sweep import prepare_folder
from orchestrator.trials.trial_queue import TrialQueue
from tests.orchestrator.plan.test_plan import write_spec
from trainers.foundation.files import write_json, write_text

PLW = "loss.prompt_loss_weight"


class Bench:
    """A sweep's folder and queue; the test ends its trials by hand."""

    def __init__(
        self,
        folder: Path,
        budget: BudgetConfig | None = None,
        *,
        num_slots: int = 8,
        num_scorers: int = 0,
        slots_help: bool = True,
        **changes: Any,
    ) -> None:
        path = write_spec(folder, **changes)
        self.spec: SweepSpec = load_spec(path)
        prepared = make_plan(self.spec)
        self.folder = SweepFolder(self.spec.folder)
        prepare_folder(self.spec, prepared, path)
        self.bases = prepared.baselines
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
            num_slots=num_slots,
            num_scorers=num_scorers,
            slots_help=slots_help,
        )

    def next_trial(self) -> QueuedJob | None:
        """Return the next trial's job; jobs of baselines are skipped."""
        while (job := self.queue.next()) is not None and job.kind == "base":
            self.queue.job_ended(job)
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
        self.queue.job_ended(job)


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
    """Run all jobs of the queue, one after another."""
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


@pytest.mark.parametrize(
    ("keep", "kept"),
    [("all", [0, 0.1, 0.2, 0.5]), ("best", [0.1]), ("last", [0.5]), ("none", [])],
)
def test_models_that_are_not_kept_are_deleted_once_scored(
    tmp_path: Path, keep: str, kept: list[float]
) -> None:
    bench = Bench(tmp_path, keep_models=keep, search={"space": {PLW: [0, 0.1, 0.2, 0.5]}})
    losses = {0: 2.1, 0.1: 1.9, 0.2: 2.0, 0.5: 2.4}
    most_models, weights = 0, {}
    while (job := bench.next_trial()) is not None:
        record = bench.record(job)
        weight = record.searched[PLW]
        weights[job.key] = weight
        ended = f"2026-11-29T00:00:0{len(weights)}+00:00"
        bench.folder.write_trial(record.model_copy(update={"ended_at": ended}))
        write_text(bench.folder.model(job.key) / "model.safetensors", "weights")
        write_text(bench.folder.trial(job.key) / "train.json", "{}")
        most_models = max(most_models, len(list(bench.folder.root.glob("trials/*/model"))))
        bench.end(job, "done", loss=losses[weight])
    models = bench.folder.root.glob("trials/*/model/model.safetensors")
    assert sorted(weights[path.parts[-3]] for path in models) == kept
    assert most_models == (4 if keep == "all" else 2 if kept else 1)
    assert len(list(bench.folder.root.glob("trials/*/scores.json"))) == 4


def test_a_failed_or_running_trial_keeps_its_model(tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep_models="none", search={"space": {PLW: [0, 0.1]}})
    first, second = bench.next_trial(), bench.next_trial()
    assert first is not None
    assert second is not None
    for job in (first, second):
        write_text(bench.folder.model(job.key) / "model.safetensors", "weights")
    bench.end(first, "failed")
    assert bench.folder.model(first.key).is_dir()
    assert bench.folder.model(second.key).is_dir()


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


def test_bayesian_search_starts_with_plw_0_and_1_and_chooses_the_others(tmp_path: Path) -> None:
    bench = Bench(tmp_path, search=TPE)
    points = [point[PLW] for point in searched(bench, drain(bench))]
    assert points[:2] == [0, 1]
    assert len(points) == 4
    assert all(0 < plw < 1 for plw in points[2:])
    assert len(bench.folder.read_sweep().trial_ids) == 4


def test_interrupted_search_continues_with_its_open_point(tmp_path: Path) -> None:
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


def test_trial_is_recorded_only_after_the_search_has_chosen_it(tmp_path: Path) -> None:
    drain(Bench(tmp_path, search=TPE))
    more = Bench(tmp_path, search={**TPE, "points": 6})
    assert len(more.folder.read_sweep().trial_ids) == 4
    drain(more)
    assert [trial.state for trial in more.folder.read_trials()] == ["done"] * 6


def test_added_seed_repeats_known_points_with_that_seed_only(tmp_path: Path) -> None:
    one = {**TPE, "seeds": [0]}
    done = drain(Bench(tmp_path, search=one))
    both = Bench(tmp_path, search={**TPE, "seeds": [0, 1]})
    more = drain(both)
    assert len(more) == 4
    assert [point["seed"] for point in searched(both, more)] == [1, 1, 1, 1]
    assert {job.key for job in more} & {job.key for job in done} == set()


def test_warm_start_uses_trials_of_another_sweep_without_running_them(tmp_path: Path) -> None:
    drain(Bench(tmp_path, search=TPE, output_dir=str(tmp_path / "first")))
    other = Bench(
        tmp_path,
        search={**TPE, "warm_start": [str(tmp_path / "first")]},
        output_dir=str(tmp_path / "second"),
    )
    points = [point[PLW] for point in searched(other, drain(other))]
    assert len(points) == 4
    assert 0 not in points
    assert 1 not in points


def test_a_failed_trial_does_not_stop_the_others(tmp_path: Path) -> None:
    assert len(drain(Bench(tmp_path, search=TPE), state="failed")) == 4


def test_a_trial_whose_processes_die_fails_and_its_point_is_not_stopped(tmp_path: Path) -> None:
    bench = Bench(tmp_path, search={"space": {PLW: [0, 0.1]}, "seeds": [1, 2]})
    first = bench.next_trial()
    assert first is not None
    bench.folder.write_trial(bench.record(first).model_copy(update={"state": "training"}))
    bench.queue.job_ended(first, has_died=True)
    record = bench.record(first)
    assert (record.state, record.failure) == ("failed", "crash")
    assert record.error == "the process that ran it died repeatedly; see sweep.log"
    assert len(drain(bench)) == 3


@pytest.mark.parametrize(("failure", "state"), [("divergence", "diverged"), ("crash", "failed")])
def test_only_a_diverged_trial_counts_against_its_point(
    tmp_path: Path, failure: str, state: str
) -> None:
    bench = Bench(tmp_path, search=TPE)
    job = bench.next_trial()
    assert job is not None
    record = mark_failed(bench.record(job), "why", failure)
    objectives = ["heldout_completion_loss"]
    assert observe(bench.folder, record.searched, [record], objectives).state == state


def test_remaining_seeds_of_a_stopped_point_do_not_start(tmp_path: Path) -> None:
    bench = Bench(tmp_path, search={"space": {PLW: [0, 0.1]}, "seeds": [1, 2]})
    first = bench.next_trial()
    assert first is not None
    bench.folder.write_trial(bench.record(first).model_copy(update={"state": "training"}))
    bench.queue.job_ended(first)
    rest = drain(bench)
    assert [point[PLW] for point in searched(bench, rest)] == [0.1, 0.1]
    assert [trial.state for trial in bench.folder.read_trials()] == [
        "stopped",
        "stopped",
        "done",
        "done",
    ]


def test_no_trial_starts_after_a_stop_request(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.next_trial() is not None
    bench.folder.request_stop(None)
    assert bench.next_trial() is None
    assert bench.queue.end_reason == "a stop was requested"


def test_trial_with_a_stop_request_before_its_start_is_skipped(tmp_path: Path) -> None:
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
def test_no_trial_starts_after_the_budget_is_spent(
    tmp_path: Path, budget: dict[str, Any], reason: str
) -> None:
    bench = Bench(tmp_path, BudgetConfig(**budget))
    job = bench.next_trial()
    assert job is not None
    bench.clock = 3600
    bench.end(job, "done", busy_seconds=3600)
    assert bench.next_trial() is None
    assert bench.queue.end_reason == reason
