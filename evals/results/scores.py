"""Scores of a model, on disk and in memory."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from evals.config import Group
from trainers.foundation.records import Record

# Names of scores in records of earlier releases, and their current names. The scores of these
# names were members of the paper's groups.
RENAMED_SCORES = {
    "multiple_choice_accuracy": "heldout.choice",
    "short_generation_exact_match": "heldout.exact_match",
    "long_generation_chrf": "heldout.chrf",
}
RENAMED_MEASURES = {
    "multiple_choice": "heldout.choice",
    "short_generation": "heldout.exact_match",
    "long_generation": "heldout.chrf",
}


class Score(Record):
    """The value of one metric for one model.

    `value` is on the metric's own scale: [0, 1] for accuracy and exact match, 0 to 100 for chrF,
    nats per token for losses. `ci_low` and `ci_high` are the 95% interval over items: it accounts
    for another sample of items, but not for another training seed. `group` is None for losses,
    which belong to no group. `num_overlapping` is the number of items that overlap the training
    data (`evals.contamination.ngrams`); None if overlap was not checked.
    """

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


class ScoreCard(Record):
    """All scores of one model, with the settings that reproduce them.

    `secondary` scores are additional benchmark metrics, which are not used for selection.
    """

    model_path: str
    scores: list[Score]
    secondary: list[Score] = Field(default_factory=list)
    signature: dict[str, Any]
    seconds: float

    @model_validator(mode="before")
    @classmethod
    def _use_current_names(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        kinds = ("scores", "secondary")
        lists = {name: content[name] for name in kinds if isinstance(content.get(name), list)}
        judged = _judged_names(content.get("signature"))
        return content | {
            name: [_current_score(row, judged) for row in rows] for name, rows in lists.items()
        }

    def by_name(self) -> dict[str, Score]:
        """Return the scores by `name`."""
        return {score.name: score for score in self.scores}


def _judged_names(signature: Any) -> dict[str, str]:
    """Return the current names of judged benchmarks by their recorded ones.

    Earlier releases judged AlpacaEval's and PandaLM's prompts with our own judge prompts, under the
    names of these benchmarks.
    """
    names = {"pandalm": "pandalm_prompts"}
    recorded = signature.get("alpaca_eval") if isinstance(signature, Mapping) else None
    if isinstance(recorded, Mapping) and recorded.get("style") == "ranking":
        names["alpaca_eval"] = "alpaca_eval_prompts"
    return names


def _current_score(score: Any, judged: Mapping[str, str]) -> Any:
    """Return a recorded score under its current name and group; a `Score` is unchanged."""
    if not isinstance(score, Mapping):
        return score
    name = str(score.get("name"))
    if name in RENAMED_SCORES:
        return {**score, "name": RENAMED_SCORES[name], "group": "heldout"}
    name = name.replace("_length_controlled_win_rate", "_length_adjusted_win_rate")
    for old, new in judged.items():
        for metric in ("win_rate", "length_adjusted_win_rate", "consistent_verdicts"):
            if name == f"{old}_{metric}":
                name = f"{new}_{metric}"
    return {**score, "name": name}
