"""Early stopping of search points by their held-out loss, all seeds of a point at once.

Ray Tune's own schedulers judge trials, so they would stop the unlucky seeds of a good point. Here
they judge points: each is one trial to them, and its result is the mean over its seeds.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from orchestrator.spec.search_config import EarlyStopping

# The one loss that is comparable between points: the training loss moves with its weights.
LOSS = "heldout_completion_loss"
STEP = "step"
REDUCTION_FACTOR = 3.0
MIN_POINTS = 3
# Tune's ASHA spaces its rungs up to here; no fine-tune has so many steps.
_MAX_STEPS = 10**9


def make_scheduler(config: EarlyStopping | None) -> "PointScheduler | None":
    """A new scheduler for a sweep that stops points early; None for one that does not.

    Source: asha is arXiv 1810.05934, section 3.1; median is Google Vizier, section 3.2.1
    (doi 10.1145/3097983.3098043); both as Ray Tune has them.
    """
    if config is None:
        return None
    goal = {"time_attr": STEP, "metric": LOSS, "mode": "min", "grace_period": config.first_step}
    if config.method == "asha":
        factor = config.reduction_factor or REDUCTION_FACTOR
        inner = ASHAScheduler(
            **goal,
            max_t=_MAX_STEPS,
            reduction_factor=factor,
            # Else a point that skips a rung is judged at a lower one by a later loss.
            stop_last_trials=False,
        )
        # Tune would stop the second point for being behind the first; it takes as many as the
        # factor for one of them to be the best share.
        return PointScheduler(inner, min_others=math.ceil(factor) - 1)
    min_points = config.min_points or MIN_POINTS
    inner = MedianStoppingRule(
        **goal,
        min_samples_required=min_points,
        # It would pause a point, and look for others to run, while there are too few.
        min_time_slice=math.inf,
        hard_stop=True,
    )
    return PointScheduler(inner, min_others=min_points)


@dataclass(frozen=True)
class _StandIn:
    """A point in the place of a trial: Tune's two rules ask for its identity alone."""

    trial_id: str


@dataclass
class _Point:
    """The seeds of a point that have not ended, and the losses that wait for the others."""

    seeds: dict[str, Any] = field(default_factory=dict)
    latest_step: dict[str, int] = field(default_factory=dict)
    losses: dict[int, dict[str, float]] = field(default_factory=dict)
    judged_step: int = 0


class PointScheduler(FIFOScheduler):  # type: ignore[misc]
    """First in, first out, but for the points that an inner scheduler wants stopped.

    None is stopped before `min_others` points have got as far.

    A trial's point is `point` in its config, or else in its results; a trial without one, such as
    the scoring of the untuned model, is left alone. Results carry `step` and, where it was
    measured, `heldout_completion_loss`. A loss is judged once every seed of the point that runs
    now has got to its step; a seed that starts later is not judged at the steps before.

    Seeds of a stopped point end at their next result, and those that wait never start. With
    `total_steps` in the results, nothing is judged at the last step, and a seed that has taken it
    is not stopped: only its scores are left to get.
    """

    def __init__(self, inner: TrialScheduler, *, min_others: int) -> None:
        super().__init__()
        self._inner, self._min_others = inner, min_others
        self._points: dict[int, _Point] = {}
        self.stopped_points: set[int] = set()

    def is_stopped(self, point: int) -> bool:
        """Whether no seed of the point is to start or go on."""
        return point in self.stopped_points

    def recall(self, point: int, losses: Mapping[int, float]) -> None:
        """Judge a point by its mean losses by step, known from before the sweep went on."""
        for step in sorted(losses):
            self._judge(point, step, losses[step])

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        # Tune would demand the sweep's metric, and ours, in every result.
        return bool(super().set_search_properties(None, None, **spec))

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        point = trial.config.get("point")
        if point is not None:
            self._at(point).seeds[trial.trial_id] = trial

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        point = trial.config.get("point")
        if point is None:
            point = result.get("point")
        if point is None:
            return str(TrialScheduler.CONTINUE)
        state, step = self._at(point), result.get(STEP)
        state.seeds[trial.trial_id] = trial
        if step is not None:
            total_steps = result.get("total_steps")
            is_last = total_steps is not None and step >= total_steps
            state.latest_step[trial.trial_id] = step
            loss = None if is_last else result.get(LOSS)
            if loss is not None and math.isfinite(loss) and step > state.judged_step:
                state.losses.setdefault(step, {})[trial.trial_id] = loss
            self._judge_complete_steps(point)
            if is_last:
                return str(TrialScheduler.CONTINUE)
        return str(TrialScheduler.STOP if self.is_stopped(point) else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self._forget(trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self._forget(trial)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        self._forget(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        for point in list(self.stopped_points):
            for trial in list(self._at(point).seeds.values()):
                if trial.status == Trial.PENDING:
                    # Tune's table of results fails on a trial that never had a folder.
                    trial.init_local_path()
                    tune_controller.stop_trial(trial)
        return super().choose_trial_to_run(tune_controller)

    def debug_string(self) -> str:
        return f"{self._inner.debug_string()}; {len(self.stopped_points)} points stopped"

    def _at(self, point: int) -> _Point:
        if point not in self._points:
            self._points[point] = _Point()
            self._inner.on_trial_add(None, _StandIn(str(point)))
        return self._points[point]

    def _forget(self, trial: Trial) -> None:
        """The others no longer wait for a trial that has ended; what it reported still counts."""
        for point, state in self._points.items():
            if state.seeds.pop(trial.trial_id, None) is not None:
                state.latest_step.pop(trial.trial_id, None)
                self._judge_complete_steps(point)

    def _judge_complete_steps(self, point: int) -> None:
        state = self._points[point]
        running = [name for name, seed in state.seeds.items() if seed.status == Trial.RUNNING]
        for step in sorted(state.losses):
            # A seed may have passed the step unseen, when its results came too fast.
            if any(state.latest_step.get(name, 0) < step for name in running):
                return
            losses = state.losses.pop(step).values()
            self._judge(point, step, sum(losses) / len(losses))

    def _judge(self, point: int, step: int, loss: float) -> None:
        state = self._at(point)
        if self.is_stopped(point) or step <= state.judged_step:
            return
        state.judged_step = step
        decision = self._inner.on_trial_result(None, _StandIn(str(point)), {STEP: step, LOSS: loss})
        num_others = sum(p.judged_step >= step for p in self._points.values()) - 1
        if decision == TrialScheduler.STOP and num_others >= self._min_others:
            self.stopped_points.add(point)
