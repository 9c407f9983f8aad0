"""Define the fields of the `search` section of a sweep spec.

`orchestrator.spec.search_config` adds the rules between the fields.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, WrapValidator
from pydantic_core import PydanticCustomError

from trainers.config_base import PathText, Positive, PositiveInt, Seed, StrictSettings

# Objectives of a search, and whether higher is better. The training loss is excluded, because its
# scale depends on the searched weight. The prompt loss is excluded, because a higher weight lowers
# it by design.
OBJECTIVES = {
    "heldout_completion_loss": False,
    "heldout.choice": True,
    "heldout.exact_match": True,
    "heldout.chrf": True,
    "aggregate_heldout": True,
    "aggregate_multiple_choice": True,
    "aggregate_short_generation": True,
    "aggregate_long_generation": True,
}

Method = Literal["grid", "random", "tpe", "gp"]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Range(StrictSettings):
    """All numbers from `low` to `high`; integers if the setting is an integer."""

    low: Number = Field(description="Smallest value, inclusive.")
    high: Number = Field(description="Largest value, inclusive.")
    scale: Literal["linear", "log"] | None = Field(
        None,
        description="`log` samples orders of magnitude evenly; null is linear. Not for "
        "loss.prompt_loss_weight, which is sampled in w_p = PLW^0.30103.",
    )


def _list_or_range(value: Any, _: Callable[[Any], Any]) -> Any:
    # A union would report one error for each of its members.
    if isinstance(value, Range):
        return value
    if isinstance(value, list):
        if not value:
            raise PydanticCustomError("too_short", "needs at least 1 value", {"min_length": 1})
        return list(value)
    rule = "must be a list of values or a range such as {low: 0, high: 1}"
    if isinstance(value, dict):
        if value.keys() & Range.model_fields:
            return Range.model_validate(value)
        rule += "; write dotted paths, such as loss.prompt_loss_weight"
    # pydantic requires a literal template.
    raise PydanticCustomError("list_or_range", "{rule}", {"rule": rule})


Searched = Annotated[list[Any] | Range, WrapValidator(_list_or_range)]


class EarlyStopping(StrictSettings):
    """Early stopping of trials by their held-out completion loss."""

    method: Literal["asha", "median"] = Field(
        description="`asha` keeps the best points of each round; `median` stops points worse than "
        "the median of the others."
    )
    first_step: PositiveInt = Field(
        description="Optimizer step of the first held-out evaluation; no trial stops earlier."
    )
    every_steps: PositiveInt | None = Field(
        None,
        description="Optimizer steps between held-out evaluations; null: first_step.",
    )
    reduction_factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = Field(
        3.0, description="asha only: one in this many points continues after a round."
    )
    min_points: PositiveInt = Field(
        3,
        description="median only: other points that must reach a step before a point stops there.",
    )

    @property
    def eval_every_steps(self) -> int:
        """Optimizer steps between held-out evaluations."""
        return self.every_steps or self.first_step


class BudgetConfig(StrictSettings):
    """Limits after which a sweep starts no more trials; null: no limit."""

    trials: PositiveInt | None = Field(None, description="Number of trials.")
    hours: Positive | None = Field(None, description="Wall-clock hours of this run.")
    gpu_hours: Positive | None = Field(None, description="GPU-hours of training and scoring.")
    money: Positive | None = Field(
        None, description="Cost: GPU-hours times resources.price_per_gpu_hour."
    )


class SearchFields(StrictSettings):
    """The search section without the rules between fields."""

    method: Method = Field(
        "grid",
        description="`grid` runs every combination, `random` samples at random, `tpe` and `gp` "
        "model the scores of earlier points.",
    )
    space: dict[str, Searched] = Field(
        min_length=1,
        description="Searched settings by dotted path, each with a list of values such as "
        "[0, 0.1, 1] or, except for a grid, a range such as {low: 0, high: 1}.",
    )
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = Field(
        None, description="Run every point once with each seed; null: once, with the spec's seed."
    )
    exclude: list[Annotated[dict[str, Any], Field(min_length=1)]] = Field(
        default_factory=list,
        description="grid only: points to leave out, each given by some or all of its values.",
    )
    constraints: list[str] = Field(
        default_factory=list,
        description="Not for a grid: conditions that every point must meet, such as "
        "optimizer.learning_rate * schedule.epochs <= 1e-4.",
    )
    points: PositiveInt | None = Field(
        None, description="Not for a grid: number of points to run, each with all seeds."
    )
    points_to_evaluate: list[Annotated[dict[str, Any], Field(min_length=1)]] = Field(
        default_factory=list,
        description="Not for a grid: points to run first; values they omit are sampled.",
    )
    seed: Seed = Field(0, description="Random seed of the search method.")
    objectives: Annotated[list[str], Field(min_length=1)] = Field(
        default=["heldout_completion_loss"],
        description="Scores to optimize; several are a multi-objective search.",
    )
    warm_start: list[PathText] = Field(
        default_factory=list,
        description="tpe and gp only: folders of other sweeps whose trials with the same fixed "
        "settings inform the search.",
    )
    early_stopping: EarlyStopping | None = Field(
        None, description="Stop points whose loss falls behind; null: never."
    )
    budget: BudgetConfig = Field(BudgetConfig(), description="Limits of the sweep.")
    stop_when_plw_within: Annotated[float, Field(gt=0, lt=0.5)] | None = Field(
        None,
        description="tpe and gp only: end the search once the report's analysis of the objective "
        "names a best w_p with a 95% confidence set of at most +/- this; null: run all points.",
    )
