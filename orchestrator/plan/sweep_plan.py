"""Plan all trials of a sweep, without starting them: their ids and estimated costs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.plan.estimates import disk_gib, gpu_hours, memory_by_zero_stage, seconds_at_risk
from orchestrator.plan.history import History, read_history, seed_values
from orchestrator.plan.opponents import check_opponents
from orchestrator.plan.planner import Baseline, Planner, TrialPlan
from orchestrator.record.baselines import BaselineRecord
from orchestrator.search.methods import make_search
from orchestrator.spec.search_points import grid_points, initial_points
from orchestrator.spec.setting_fields import LEARNING_RATE, PLW
from orchestrator.spec.sweep_spec import SweepSpec
from trainers.config import TrainConfig
from trainers.foundation.errors import InputError, Problem

_MAX_LISTED = 20  # problems
# A quadratic in the weight takes three trials, an estimate of the noise around it three more.
_MIN_UNREPEATED_TRIALS = 6
# A level, a quadratic in the weight and one in the logarithm of the rate, and three for the noise.
MIN_OWN_RATES = 8


class BaselinePlan(BaselineRecord):
    """A baseline, and whether its untuned model has the requested scores."""

    has_scores: bool


class SweepPlan(BaseModel):
    """The plan of a sweep; `trials` are in the order in which they start.

    The search chooses the values of `num_open` further trials at run time. Memory is that of one
    worker for the largest trial; GPU hours and cost cover the trials that have not been trained.
    Unknown estimates are None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    output_dir: str
    trials: list[TrialPlan]
    bases: list[BaselinePlan]
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
    def has_baseline_scores(self) -> bool:
        """Whether all untuned models have been scored."""
        return all(base.has_scores for base in self.bases)

    @property
    def most_seconds_at_risk(self) -> float | None:
        """The longest training time that the loss of a node can cost; None if it is unknown."""
        return max(
            (
                seconds_at_risk(
                    TrainConfig.model_validate(trial.settings),
                    trial.steps,
                    trial.estimated_train_seconds,
                )
                for trial in self.trials
                if trial.state == "pending" and trial.estimated_train_seconds is not None
            ),
            default=None,
        )

    @property
    def is_too_small(self) -> bool:
        """Whether the report cannot name a weight, because the trials do not show their noise."""
        points = [_point(trial) for trial in self.trials]
        is_repeated = any(point in points[:index] for index, point in enumerate(points))
        is_about_weight = any(PLW in point for point in points)
        return is_about_weight and not is_repeated and self.num_trials < _MIN_UNREPEATED_TRIALS

    @property
    def num_points(self) -> int:
        """The number of points of a search, which has the same number of seeds for each."""
        points = [_point(trial) for trial in self.trials]
        return self.num_trials // points.count(points[0])

    @property
    def has_too_few_own_rates(self) -> bool:
        """Whether a search has too few points for a verdict on weights with rates of their own."""
        is_about_both = {PLW, LEARNING_RATE} <= self.trials[0].searched.keys()
        return self.num_open > 0 and is_about_both and self.num_points < MIN_OWN_RATES

    @property
    def num_trials(self) -> int:
        """The number of trials, including those that the search chooses at run time."""
        return len(self.trials) + self.num_open

    @property
    def has_work(self) -> bool:
        """Whether anything remains to be trained or scored."""
        is_skipped = all(trial.state in ("done", "stopped") for trial in self.trials)
        return not (is_skipped and self.num_open == 0 and self.has_baseline_scores)


def _point(trial: TrialPlan) -> dict[str, Any]:
    """Return the searched values other than the seed."""
    return {name: value for name, value in trial.searched.items() if name != "seed"}


@dataclass(frozen=True)
class PreparedSweep:
    """A plan with its planner and history, so that nothing is read twice."""

    plan: SweepPlan
    planner: Planner
    history: History

    @property
    def baselines(self) -> list[Baseline]:
        return self.planner.baselines


def make_plan(spec: SweepSpec) -> PreparedSweep:
    """Plan the trials that are known so far, read the data, and estimate the cost.

    Raises:
        InputError: models, data or settings of trials are invalid; lists all problems.
    """
    planner = Planner(spec)
    if spec.search.method == "grid":
        trials = _plan_all(
            planner, [{**p, **r} for p in grid_points(spec.search) for r in seed_values(spec)]
        )
        _check_first_step(spec, trials)
        check_opponents(spec, trials)
        return PreparedSweep(sweep_plan(spec, planner, trials, num_open=0), planner, History())
    history = read_history(spec, planner)
    search = make_search(spec.search, history.known, history.num_own, history.unfinished)
    points: list[dict[str, Any]] = []
    # The search chooses all other points from the scores of earlier ones.
    num_first = len(history.unfinished) + max(1, len(initial_points(spec.search)))
    while len(points) < num_first and (point := search.ask()) is not None:
        points.append(point.searched)
    known = {trial.id for trial in history.trials}
    new = _plan_all(planner, [{**p, **r} for p in points for r in seed_values(spec)])
    trials = [*history.trials, *(trial for trial in new if trial.id not in known)]
    assert spec.search.points is not None
    if not trials:
        raise InputError(_no_point(spec, str(search.ended)))
    _check_first_step(spec, trials)
    check_opponents(spec, trials)
    num_open = max(0, spec.search.points * len(seed_values(spec)) - len(trials))
    if search.ended is not None:
        num_open = 0
    return PreparedSweep(sweep_plan(spec, planner, trials, num_open=num_open), planner, history)


def _check_first_step(spec: SweepSpec, trials: Sequence[TrialPlan]) -> None:
    """Check that early stopping can judge a trial before its end.

    Raises:
        InputError: the first evaluation comes with or after the last step of every trial.
    """
    early_stopping = spec.search.early_stopping
    most = max(trial.steps for trial in trials)
    if early_stopping is not None and early_stopping.first_step >= most:
        raise InputError(
            Problem(
                message="search.early_stopping.first_step must be less than the steps of a trial, "
                f"{most}, got {early_stopping.first_step}: no trial would ever be stopped",
                where="search.early_stopping",
                fix="lower first_step, train longer, or remove search.early_stopping",
            )
        )


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
            problems.append(_duplicate_trials(twin.searched, searched))
    if problems:
        raise InputError(_limit_problems(problems))
    return list(trials.values())


def sweep_plan(
    spec: SweepSpec, planner: Planner, trials: Sequence[TrialPlan], *, num_open: int
) -> SweepPlan:
    """Return the plan of `trials`, which `planner` planned, and of `num_open` similar ones."""
    resources = spec.resources
    bases = planner.baselines
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
        bases=[
            BaselinePlan(**base.record.model_dump(), has_scores=base.has_scores) for base in bases
        ],
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
    """Return the sum; None if a value is None."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _by_zero_stage(
    planner: Planner, trial: TrialPlan | None, num_workers: int
) -> dict[int, float | None] | None:
    size = planner.baseline_of(trial).num_parameters if trial else None
    if trial is None or size is None:
        return None
    return memory_by_zero_stage(size, TrainConfig.model_validate(trial.settings), num_workers)


def _disk(
    planner: Planner, to_train: Sequence[TrialPlan], like: TrialPlan, num_open: int
) -> float | None:
    """Return the GiB for `to_train` and for `num_open` more trials of the size of `like`."""
    trials = [(trial, 1) for trial in to_train] + [(like, num_open)]
    return disk_gib(
        (
            planner.baseline_of(trial).num_parameters,
            TrainConfig.model_validate(trial.settings),
            count,
        )
        for trial, count in trials
        if count
    )


def _no_point(spec: SweepSpec, reason: str) -> Problem:
    if spec.search.constraints:
        return Problem(
            message="no point was found in search.space that meets "
            + " and ".join(repr(text) for text in spec.search.constraints),
            where="search.constraints",
            fix="relax a constraint, or widen search.space",
        )
    return Problem(message=reason, where="search.space", fix="widen search.space")


def _duplicate_trials(one: Mapping[str, Any], other: Mapping[str, Any]) -> Problem:
    return Problem(
        message=f"the trials {dict(one)} and {dict(other)} are the same: their models and data"
        " have the same content",
        fix="remove one of the values that lead to the same files",
    )


def _limit_problems(problems: list[Problem]) -> list[Problem]:
    hidden = len(problems) - _MAX_LISTED
    more = [Problem(message=f"and {hidden} more problems")] if hidden > 0 else []
    return [*problems[:_MAX_LISTED], *more]
