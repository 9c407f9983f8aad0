"""The trials of a sweep, who they are and what they will cost. Starts nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.plan.estimates import disk_gib, gpu_hours, memory_by_zero_stage
from orchestrator.plan.history import History, read_history, repeats
from orchestrator.plan.planner import Base, Planner, TrialPlan
from orchestrator.record.bases import BaseRecord
from orchestrator.search.points import make_search
from orchestrator.spec.search_rules import first_points, grid_points
from orchestrator.spec.sweep_spec import SweepSpec
from trainers.config import TrainConfig
from trainers.foundation.errors import InputError, Problem

_MAX_LISTED = 20  # problems


class BasePlan(BaseRecord):
    """A base, and whether its untuned model has the scores that the spec asks for."""

    has_scores: bool


class SweepPlan(BaseModel):
    """All that a sweep will do; `trials` in the order in which they start.

    `num_open` more trials get their values from the search, once it knows what came before.
    Memory is that of one worker for the largest trial, GPU hours and cost those of the trials
    that are still to be trained. What cannot be known beforehand is None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    output_dir: str
    trials: list[TrialPlan]
    bases: list[BasePlan]
    num_open: int
    num_done: int
    workers_per_trial: int
    cpus_per_worker: int
    estimated_memory_gib: float | None
    memory_by_zero_stage: dict[int, float | None] | None
    estimated_disk_gib: float | None
    estimated_train_seconds: float | None
    estimated_gpu_hours: float | None
    estimated_cost: float | None
    estimate_basis: str

    @property
    def has_base_scores(self) -> bool:
        """Whether no untuned model is left to be scored."""
        return all(base.has_scores for base in self.bases)

    @property
    def num_trials(self) -> int:
        """Those that are listed, and those that the search has yet to choose."""
        return len(self.trials) + self.num_open

    @property
    def has_work(self) -> bool:
        """Whether anything is left to be trained or scored."""
        is_skipped = all(trial.state in ("done", "stopped") for trial in self.trials)
        return not (is_skipped and self.num_open == 0 and self.has_base_scores)


@dataclass(frozen=True)
class Prepared:
    """A plan with what it was made from, so that nothing is read twice."""

    plan: SweepPlan
    planner: Planner
    history: History

    @property
    def bases(self) -> list[Base]:
        return self.planner.bases


def make_plan(spec: SweepSpec) -> Prepared:
    """List the trials as far as they are known, read and count the data, and estimate the cost.

    Raises:
        InputError: models, data or trials' settings do not fit, all of them at once.
    """
    planner = Planner(spec)
    if spec.search.method == "grid":
        trials = _plan_all(
            planner, [{**p, **r} for p in grid_points(spec.search) for r in repeats(spec)]
        )
        return Prepared(sweep_plan(spec, planner, trials, num_open=0), planner, History())
    history = read_history(spec, planner)
    search = make_search(spec.search, history.known, history.num_own, history.unfinished)
    points: list[dict[str, Any]] = []
    # The rest is chosen from what these, and those that follow them, come to.
    num_first = len(history.unfinished) + max(1, len(first_points(spec.search)))
    while len(points) < num_first and (point := search.ask()) is not None:
        points.append(point.searched)
    known = {trial.id for trial in history.trials}
    new = _plan_all(planner, [{**p, **r} for p in points for r in repeats(spec)])
    trials = [*history.trials, *(trial for trial in new if trial.id not in known)]
    assert spec.search.points is not None
    if not trials:
        raise InputError(_no_point(spec, str(search.ended)))
    num_open = max(0, spec.search.points * len(repeats(spec)) - len(trials))
    if search.ended is not None:
        num_open = 0
    return Prepared(sweep_plan(spec, planner, trials, num_open=num_open), planner, history)


def _plan_all(planner: Planner, all_searched: Sequence[dict[str, Any]]) -> list[TrialPlan]:
    trials: dict[str, TrialPlan] = {}
    problems: list[Problem] = []
    for searched in all_searched:
        try:
            trial = planner.plan_trial(searched)
        except InputError as error:
            problems += [problem for problem in error.problems if problem not in problems]
            continue
        twin = trials.setdefault(trial.id, trial)
        if twin is not trial:
            problems.append(_twins(twin.searched, searched))
    if problems:
        raise InputError(_shortened(problems))
    return list(trials.values())


def sweep_plan(
    spec: SweepSpec, planner: Planner, trials: Sequence[TrialPlan], *, num_open: int
) -> SweepPlan:
    """What these trials, planned by `planner`, and `num_open` more of their kind amount to."""
    resources = spec.resources
    bases = planner.bases
    to_train = [trial for trial in trials if trial.state == "pending"]
    seconds = _sum(trial.estimated_train_seconds for trial in to_train)
    if seconds is not None and num_open > 0:
        each = _sum(trial.estimated_train_seconds for trial in trials)
        seconds += num_open * (each or 0.0) / max(1, len(trials))
    hours = None if seconds is None else gpu_hours(seconds, resources)
    price = resources.price_per_gpu_hour
    largest = max(trials, key=lambda trial: trial.estimated_memory_gib or 0.0, default=None)
    return SweepPlan(
        name=spec.name,
        output_dir=str(spec.folder),
        trials=list(trials),
        bases=[BasePlan(**base.record.model_dump(), has_scores=base.has_scores) for base in bases],
        num_open=num_open,
        num_done=sum(trial.state == "done" for trial in trials),
        workers_per_trial=resources.workers_per_trial,
        cpus_per_worker=resources.cpus_per_worker,
        estimated_memory_gib=largest.estimated_memory_gib if largest else None,
        memory_by_zero_stage=_by_zero_stage(planner, largest, resources.workers_per_trial),
        estimated_disk_gib=_disk(planner, to_train, trials[0], num_open),
        estimated_train_seconds=seconds,
        estimated_gpu_hours=hours,
        estimated_cost=None if price is None or hours is None else hours * price,
        estimate_basis="; ".join(dict.fromkeys(planner.speed(base)[1] for base in bases)),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """Their sum; None if one of them is."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _by_zero_stage(
    planner: Planner, trial: TrialPlan | None, num_workers: int
) -> dict[int, float | None] | None:
    size = planner.base_of(trial).num_parameters if trial else None
    if trial is None or size is None:
        return None
    return memory_by_zero_stage(size, TrainConfig.model_validate(trial.settings), num_workers)


def _disk(
    planner: Planner, to_train: Sequence[TrialPlan], like: TrialPlan, num_open: int
) -> float | None:
    """GiB for trials, and for `num_open` more that are as large as `like`."""
    trials = [(trial, 1) for trial in to_train] + [(like, num_open)]
    return disk_gib(
        (planner.base_of(trial).num_parameters, TrainConfig.model_validate(trial.settings), count)
        for trial, count in trials
        if count
    )


def _no_point(spec: SweepSpec, reason: str) -> Problem:
    if spec.search.constraints:
        return Problem(
            message="no point was found in search.space that meets "
            + " and ".join(repr(text) for text in spec.search.constraints),
            where="search.constraints",
            fix="loosen one, or widen search.space",
        )
    return Problem(message=reason, where="search.space", fix="widen it")


def _twins(one: Mapping[str, Any], other: Mapping[str, Any]) -> Problem:
    return Problem(
        message=f"the trials {dict(one)} and {dict(other)} are the same: their models and data"
        " have the same content",
        fix="drop one of the values that lead to the same files",
    )


def _shortened(problems: list[Problem]) -> list[Problem]:
    hidden = len(problems) - _MAX_LISTED
    more = [Problem(message=f"and {hidden} more problems")] if hidden > 0 else []
    return [*problems[:_MAX_LISTED], *more]
