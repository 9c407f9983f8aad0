"""Every setting of a trial by its dotted path, with the type and the bounds of its values."""

import copy
import types
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from trainers.config import Section, TrainConfig

PLW = "loss.prompt_loss_weight"
COMPLETION_WEIGHT = "loss.role_weights.completion"
# What only decides how often something is written is no part of a trial's identity.
CADENCE = (
    "checkpoint",
    "log_every_steps",
    "log_distance_every_steps",
    "log_heldout_every_steps",
)
# Trials are compared on the same held-out items.
HELDOUT = ("data.heldout_examples", "data.seed")

NumberKind = Literal["integer", "float"]


@cache
def setting_fields() -> dict[str, FieldInfo]:
    """The fields of `TrainConfig` that hold no further section, by dotted path."""
    return dict(_leaf_fields(TrainConfig, ""))


def _leaf_fields(model: type[Section], prefix: str) -> list[tuple[str, FieldInfo]]:
    leaves: list[tuple[str, FieldInfo]] = []
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            leaves += _leaf_fields(annotation, f"{prefix}{name}.")
        else:
            leaves.append((f"{prefix}{name}", field))
    return leaves


@cache
def number_kind(dotted: str) -> NumberKind | None:
    """What numbers a setting takes; None for one that takes none, such as a name or a switch."""
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


def broken_rule_of(dotted: str, value: Any) -> str | None:
    """The rule that `value` breaks as a value of this setting alone, in words."""
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
    """A copy of nested settings in which values by dotted path have been put."""
    changed = copy.deepcopy(dict(settings))
    for dotted, value in values.items():
        *parents, last = dotted.split(".")
        section = changed
        for parent in parents:
            section = section[parent]
        section[last] = value
    return changed
