"""What a score is once it has been measured, on disk and in memory."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from evals.config import Group


class Score(BaseModel):
    """One measure of one model.

    `value` is on the measure's own scale (a share in [0, 1] for accuracy and exact match, 0 to
    100 for chrF, nats per token for losses). `ci_low` and `ci_high` bound its 95% interval over
    items: another draw of items, not another training seed. `group` is None for the losses,
    which belong to none of the three benchmark groups. `num_overlapping` of the items stand in the
    training data too (`evals.contamination.ngrams`); None where nobody looked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    group: Group | None
    value: float
    standard_error: float | None
    ci_low: float | None
    ci_high: float | None
    num_items: int
    higher_is_better: bool
    unit: str
    interval_method: str
    num_overlapping: int | None = None


class ScoreCard(BaseModel):
    """All scores of one model, with what is needed to measure them again.

    `secondary` are further metrics of benchmarks: for reading, since nothing selects on them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_path: str
    scores: list[Score]
    secondary: list[Score] = []
    signature: dict[str, Any]
    seconds: float

    def by_name(self) -> dict[str, Score]:
        """The scores by their `name`."""
        return {score.name: score for score in self.scores}
