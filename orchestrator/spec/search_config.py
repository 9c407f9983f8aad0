"""What is searched, how, for what and for how long: the `search` section of a sweep spec.

Every rule between its fields is checked when it is built, and all that are broken come at once,
each with its place (`orchestrator.spec.search_rules`).
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from orchestrator.spec.search_rules import broken_rules, rule_error
from trainers.config import PathText, Positive, PositiveInt, Section, Seed

Method = Literal["grid", "random", "tpe", "gp"]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Range(Section):
    """All numbers between two; whole ones where the setting is a whole number."""

    low: Number = Field(description="Smallest value, itself in the range.")
    high: Number = Field(description="Largest value, itself in the range.")
    scale: Literal["linear", "log"] | None = Field(
        None,
        description="log searches orders of magnitude evenly; null is linear. The prompt loss "
        "weight has a scale of its own, w_p = PLW^0.30103, and takes none.",
    )


def _list_or_range(value: Any, _: Callable[[Any], Any]) -> Any:
    # One place of an error instead of one for each member of the union.
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
        rule += "; name a setting by its whole path, as in loss.prompt_loss_weight"
    # In two parts, as a template must be a literal.
    raise PydanticCustomError("list_or_range", "{rule}", {"rule": rule})


Searched = Annotated[list[Any] | Range, WrapValidator(_list_or_range)]


class EarlyStopping(Section):
    """When a trial is given up, judged by its held-out completion loss."""

    method: Literal["asha", "median"] = Field(
        description="asha keeps the best of each round, median stops what is worse than half."
    )
    first_step: PositiveInt = Field(
        description="Optimizer step of the first held-out measurement; none is stopped before it."
    )
    every_steps: PositiveInt | None = Field(
        None,
        description="Optimizer steps between held-out measurements; null takes first_step.",
    )
    reduction_factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = Field(
        3.0, description="asha only: one of so many points goes on after a round."
    )
    min_points: PositiveInt = Field(
        3, description="Other points that must have come as far before one is given up."
    )

    @property
    def measured_every_steps(self) -> int:
        """Optimizer steps between held-out measurements."""
        return self.every_steps or self.first_step


class BudgetConfig(Section):
    """What a sweep may use up before it starts no more trials; null sets no limit."""

    trials: PositiveInt | None = Field(None, description="Trials that are run.")
    hours: Positive | None = Field(None, description="Hours by the clock.")
    gpu_hours: Positive | None = Field(None, description="Hours of GPUs in use, for scoring too.")
    money: Positive | None = Field(
        None, description="GPU hours times resources.price_per_gpu_hour, in its currency."
    )


class SearchConfig(Section):
    """What is searched, and how."""

    method: Method = Field(
        "grid",
        description="grid tries every combination; random draws; tpe and gp learn from trials.",
    )
    space: dict[str, Searched] = Field(
        min_length=1,
        description="Values to try by dotted path: a list such as loss.prompt_loss_weight: "
        "[0, 0.1, 1], or, but for a grid, a range such as {low: 0, high: 1}.",
    )
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = Field(
        None, description="Every point is run once with each `seed`; null takes the spec's own."
    )
    exclude: list[Annotated[dict[str, Any], Field(min_length=1)]] = Field(
        default_factory=list,
        description="grid only: points left out, as values by dotted path; some are enough.",
    )
    constraints: list[str] = Field(
        default_factory=list,
        description="Not for a grid: what must hold for every point, such as "
        "optimizer.learning_rate * schedule.epochs <= 1e-4.",
    )
    points: PositiveInt | None = Field(
        None, description="Not for a grid: points that are run, each with all seeds."
    )
    first_points: list[Annotated[dict[str, Any], Field(min_length=1)]] = Field(
        default_factory=list,
        description="Not for a grid: points that are run first; what they leave open is drawn.",
    )
    seed: Seed = Field(0, description="Seed of what random, tpe and gp draw.")
    objectives: Annotated[list[str], Field(min_length=1)] = Field(
        default=["heldout_completion_loss"],
        description="Scores that the search is for; with several, all of their trade-offs.",
    )
    learn_from: list[PathText] = Field(
        default_factory=list,
        description="tpe and gp only: folders of other sweeps whose trials inform this one, where "
        "all that is not searched is the same.",
    )
    early_stopping: EarlyStopping | None = Field(
        None, description="Give up trials that fall behind; null runs all to their end."
    )
    budget: BudgetConfig = Field(BudgetConfig(), description="What the sweep may use up.")
    stop_when_plw_within: Annotated[float, Field(gt=0, lt=0.5)] | None = Field(
        None,
        description="tpe and gp only: stop when the report's analysis of the objective names a "
        "best w_p to within this, as half of its 95% confidence set; null runs all points.",
    )

    @model_validator(mode="after")
    def _all_rules(self) -> Self:
        rules = broken_rules(self)
        if rules:
            raise rule_error(rules)
        return self
