"""The types that all evaluations share: an evaluation and its result."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from evals.results.scores import Score

if TYPE_CHECKING:
    # For types only: it imports torch, which reports do not need.
    from evals.engine.batching import ProgressCallback

Sample = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """The scores of one evaluation and one sample per scored item, JSON-serialisable.

    A sample has at least `measure`, `id`, `prompt` (as the model received it), `target`, `output`
    and `value`. `secondary` scores are informative: they belong to no group and are not used for
    selection. `signature` contains everything that the scores depend on, other than the settings.
    """

    scores: list[Score]
    samples: list[Sample]
    secondary: list[Score] = field(default_factory=list)
    signature: dict[str, Any] = field(default_factory=dict)


class RunEvaluation(Protocol):
    """The function that runs an evaluation."""

    def __call__(self, *, on_progress: "ProgressCallback") -> EvaluationResult: ...


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation: `run` runs it and reports how many of `num_items` are done.

    `num_items` is None if the number is known only after loading. `name` is unique within a scoring
    run. `settings` contains everything that the result depends on, other than the model, its
    template and the machine; JSON-serialisable. `prepare`, if any, takes `on_progress` like `run`;
    it does and stores everything that needs the model's device, and the rest of `run` needs none.
    """

    name: str
    num_items: int | None
    settings: dict[str, Any] = field(default_factory=dict)
    run: RunEvaluation
    prepare: Callable[..., object] | None = None
