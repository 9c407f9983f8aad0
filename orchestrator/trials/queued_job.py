"""A job of a sweep, as the queue gives it to a driver."""

from dataclasses import dataclass, field
from typing import Any

from orchestrator.trials.run_trial import JobKind


@dataclass(frozen=True)
class QueuedJob:
    """A trial to train, to score or both, or a baseline whose untuned model is to be scored.

    `point` is the number of the search's point if the trial is trained. `untuned` contains
    `settings`, `model_path` and `opponent` of a baseline; those of a trial are in its record.
    `on_scorer`: a scorer with its own resources runs the job, otherwise the ranks in a trial's
    slot.
    """

    kind: JobKind
    key: str
    point: int | None = None
    untuned: dict[str, Any] = field(default_factory=dict)
    on_scorer: bool = False
