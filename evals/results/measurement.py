"""What every measure hands back."""

from dataclasses import dataclass, field
from typing import Any

from evals.results.scores import Score

Sample = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The scores of one measure and one sample per scored item, ready for JSON.

    A sample has at least `measure`, `id`, `prompt` (what the model was shown), `target`,
    `output` and `value`. `secondary` scores are for reading on: nothing selects on them and they
    count for no group. `signature` holds what the scores depend on beyond the settings.
    """

    scores: list[Score]
    samples: list[Sample]
    secondary: list[Score] = field(default_factory=list)
    signature: dict[str, Any] = field(default_factory=dict)
