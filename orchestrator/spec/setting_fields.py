"""Look up the settings of a trial by dotted path, with the types and bounds of their values."""

import copy
import types
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from trainers.config import TrainConfig
from trainers.config_base import StrictSettings

PLW = "loss.prompt_loss_weight"
LEARNING_RATE = "optimizer.learning_rate"
COMPLETION_WEIGHT = "loss.role_weights.completion"
# These only control what is written and how often, so they are not part of a trial's identity.
INTERVAL_SETTINGS = (
    "checkpoint",
    "log_every_steps",
    "log_distance_every_steps",
    "log_final_distance",
    "log_heldout_every_steps",
    "profile_steps",
)
# These select the held-out examples, which all trials share.
HELDOUT_SETTINGS = ("data.heldout_examples", "data.seed")

NumberKind = Literal["integer", "float"]


@cache
def setting_fields() -> dict[str, FieldInfo]:
    """Return the leaf fields of `TrainConfig` by dotted path."""
    return dict(_leaf_fields(TrainConfig, ""))


def _leaf_fields(model: type[StrictSettings], prefix: str) -> list[tuple[str, FieldInfo]]:
    leaves: list[tuple[str, FieldInfo]] = []
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, StrictSettings):
            leaves += _leaf_fields(annotation, f"{prefix}{name}.")
        else:
            leaves.append((f"{prefix}{name}", field))
    return leaves


@cache
def number_kind(dotted: str) -> NumberKind | None:
    """Return the number type of a setting; None for other settings, such as names or switches."""
    annotation: Any = setting_fields()[dotted].annotation
    kinds = [part for part in _types_in(annotation) if part is not types.NoneType]
    if kinds == [int]:
        return "integer"
    return "float" if kinds == [float] else None


def _types_in(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _types_in(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [kind for part in get_args(annotation) for kind in _types_in(part)]
    return [annotation]


def violated_rule(dotted: str, value: Any) -> str | None:
    """Return the rule that `value` violates for this setting; None if the value is valid."""
    try:
        _adapter(dotted).validate_python(value, strict=True)
    except ValidationError as error:
        rule = error.errors()[0]["msg"].removeprefix("Value error, ")
        return f"{rule[0].lower()}{rule[1:]}"
    return None


@cache
def _adapter(dotted: str) -> TypeAdapter[Any]:
    field = setting_fields()[dotted]
    rules: Any = field.annotation
    if field.metadata:
        rules = Annotated[field.annotation, *field.metadata]
    return TypeAdapter(rules)


def with_values(settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of nested settings, updated with `values` by dotted path."""
    changed = copy.deepcopy(dict(settings))
    for dotted, value in values.items():
        *parents, last = dotted.split(".")
        section = changed
        for parent in parents:
            section = section[parent]
        section[last] = value
    return changed
