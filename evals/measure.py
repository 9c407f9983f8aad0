"""What every measure hands back."""

from dataclasses import dataclass, field
from typing import Any

from evals.scores import Score

Sample = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The scores of one measure and one sample per scored item, ready for JSON.

    A sample has at least `measure`, `id`, `prompt` (what the model was shown), `target`,
    `output` and `value`. `signature` holds what the scores depend on beyond the settings.
    """

    scores: list[Score]
    samples: list[Sample]
    signature: dict[str, Any] = field(default_factory=dict)
