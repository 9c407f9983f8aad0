"""Stop points early by the mean held-out loss over their seeds.

Ray Tune's schedulers judge single trials, so they would stop the unlucky seeds of a good point.
Here the schedulers see each point as one trial, whose result is the mean over its seeds.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from orchestrator.spec.search_fields import EarlyStopping

# Comparable between points, unlike the training loss, which depends on the loss weights.
LOSS = "heldout_completion_loss"
STEP = "step"
# Upper bound for the rungs of Tune's ASHA; no fine-tune has this many steps.
_MAX_STEPS = 10**9


def make_scheduler(config: EarlyStopping | None) -> "PointScheduler | None":
    """Return a scheduler for `search.early_stopping`; None if it is not set.

    Source: asha is arXiv 1810.05934, section 3.1; median is Google Vizier, section 3.2.1
    (doi 10.1145/3097983.3098043). Both are Ray Tune's implementations.
    """
    if config is None:
        return None
    goal = {"time_attr": STEP, "metric": LOSS, "mode": "min", "grace_period": config.first_step}
    if config.method == "asha":
        inner = ASHAScheduler(
            **goal,
            max_t=_MAX_STEPS,
            reduction_factor=config.reduction_factor,
            # With True, a point that skips a rung would be judged at that rung by a later loss.
            stop_last_trials=False,
        )
        # Tune stops the second point if it is worse than the first. The best 1/factor of the
        # points is only defined for at least `factor` points.
        return PointScheduler(inner, min_others=math.ceil(config.reduction_factor) - 1)
    inner = MedianStoppingRule(
        **goal,
        min_samples_required=config.min_points,
        # A finite value would pause a point while there are too few others.
        min_time_slice=math.inf,
        hard_stop=True,
    )
    return PointScheduler(inner, min_others=config.min_points)


@dataclass(frozen=True)
class _PointTrial:
    """A point in the role of a trial. Tune's two schedulers only use its identity."""

    trial_id: str


@dataclass
class _Point:
    """The active seeds of a point, and losses by step that wait for other seeds."""

    seeds: dict[str, Any] = field(default_factory=dict)
    latest_step: dict[str, int] = field(default_factory=dict)
    losses: dict[int, dict[str, float]] = field(default_factory=dict)
    judged_step: int = 0


class PointScheduler(FIFOScheduler):  # type: ignore[misc]
    """A FIFO scheduler that stops points on the decision of an inner scheduler.

    No point is stopped at a step before `min_others` other points have reached that step.

    The key `point` in a trial's config or results identifies its point. Trials without a point,
    such as the scoring of an untuned model, are never stopped. Results contain `step` and, if it
    was evaluated, `heldout_completion_loss`. A loss is judged once all running seeds of the point
    have reached its step; a seed that starts later is not judged at earlier steps.

    Seeds of a stopped point end at their next result, and pending seeds never start. If results
    contain `total_steps`, the last step is not judged, and a seed that has reached it is not
    stopped, because only its scoring remains.
    """

    def __init__(self, inner: TrialScheduler, *, min_others: int) -> None:
        super().__init__()
        self._inner, self._min_others = inner, min_others
        self._points: dict[int, _Point] = {}
        self.stopped_points: set[int] = set()

    def restore(self, points: Iterable[Mapping[int, float]]) -> None:
        """Count points of earlier runs of the sweep, which never start again.

        Args:
            points: for each point, the mean held-out loss of its seeds by step.
        """
        for number, losses in enumerate(points):
            # Negative numbers, because points of this run count from 0.
            trial, state = _PointTrial(str(-1 - number)), _Point()
            self._points[-1 - number] = state
            for step, loss in sorted(losses.items()):
                # The end of a trial adds its result without a decision; Tune's ASHA then forgets
                # the trial, but not its loss at a rung.
                self._inner.on_trial_add(None, trial)
                self._inner.on_trial_complete(None, trial, {STEP: step, LOSS: loss})
                state.judged_step = step

    def is_stopped(self, point: int) -> bool:
        """Return whether the point is stopped; its seeds then neither start nor continue."""
        return point in self.stopped_points

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        # If a metric is set, Tune requires it in every result.
        return bool(super().set_search_properties(None, None, **spec))

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        point = trial.config.get("point")
        if point is not None:
            self._state(point).seeds[trial.trial_id] = trial

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        point = trial.config.get("point")
        if point is None:
            point = result.get("point")
        if point is None:
            return str(TrialScheduler.CONTINUE)
        state, step = self._state(point), result.get(STEP)
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
            for trial in list(self._state(point).seeds.values()):
                if trial.status == Trial.PENDING:
                    # Tune's result table fails on a trial without a folder.
                    trial.init_local_path()
                    tune_controller.stop_trial(trial)
        return super().choose_trial_to_run(tune_controller)

    def debug_string(self) -> str:
        return f"{self._inner.debug_string()}; {len(self.stopped_points)} points stopped"

    def _state(self, point: int) -> _Point:
        if point not in self._points:
            self._points[point] = _Point()
            self._inner.on_trial_add(None, _PointTrial(str(point)))
        return self._points[point]

    def _forget(self, trial: Trial) -> None:
        """Stop waiting for an ended trial; its reported losses still count."""
        for point, state in self._points.items():
            if state.seeds.pop(trial.trial_id, None) is not None:
                state.latest_step.pop(trial.trial_id, None)
                self._judge_complete_steps(point)

    def _judge_complete_steps(self, point: int) -> None:
        state = self._points[point]
        running = [name for name, seed in state.seeds.items() if seed.status == Trial.RUNNING]
        for step in sorted(state.losses):
            # If results come too fast, a seed's result at this step may have been missed.
            if any(state.latest_step.get(name, 0) < step for name in running):
                return
            losses = state.losses.pop(step).values()
            self._judge(point, step, sum(losses) / len(losses))

    def _judge(self, point: int, step: int, loss: float) -> None:
        state = self._state(point)
        if self.is_stopped(point) or step <= state.judged_step:
            return
        state.judged_step = step
        decision = self._inner.on_trial_result(
            None, _PointTrial(str(point)), {STEP: step, LOSS: loss}
        )
        num_others = sum(p.judged_step >= step for p in self._points.values()) - 1
        if decision == TrialScheduler.STOP and num_others >= self._min_others:
            self.stopped_points.add(point)
