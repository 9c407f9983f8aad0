"""The rules between the fields of a `search` section, each with the place where it is broken."""

import difflib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from orchestrator.spec.constraints import Constraint, read_constraint
from orchestrator.spec.setting_fields import (
    CADENCE,
    COMPLETION_WEIGHT,
    HELDOUT,
    PLW,
    broken_rule_of,
    number_kind,
    setting_fields,
)
from trainers.foundation.settings_file import mend, shown

if TYPE_CHECKING:
    from orchestrator.spec.search_config import Range, SearchConfig

# What a search can be for, and whether more of it is better. Not the training loss, whose scale
# moves with the weight that is searched, nor the prompt loss, which the weight trades against.
OBJECTIVES = {
    "heldout_completion_loss": False,
    "multiple_choice_accuracy": True,
    "short_generation_exact_match": True,
    "long_generation_chrf": True,
    "aggregate_multiple_choice": True,
    "aggregate_short_generation": True,
    "aggregate_long_generation": True,
}
_NO_OBJECTIVES = ("loss", "train_loss", "weighted_loss", "heldout_prompt_loss", "prompt_loss")
# Combinations that are looked at, where there may be more of them than anyone could wait for.
MAX_CORNERS = 256
# Points of a grid before any is left out: each is planned, at about 2 ms, before one starts.
MAX_GRID_POINTS = 100_000


class Rule(NamedTuple):
    """A broken rule; `key_path` leads from the section to the place."""

    key_path: tuple[str | int, ...]
    message: str
    fix: str


def rule_error(rules: Sequence[Rule]) -> ValidationError:
    """One error of all rules, which pydantic and `build_config` give the place they stand in."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError(
                "rule", "{message}", {"message": rule.message, "fix": rule.fix}
            ),
            loc=rule.key_path,
            input=None,
        )
        for rule in rules
    ]
    return ValidationError.from_exception_data("search", details)


def broken_rules(search: "SearchConfig") -> list[Rule]:
    """Every rule that a section breaks whose fields are right one by one."""
    rules = list(_space_rules(search))
    # The other rules speak of values in the space, which must be one first.
    if not rules:
        rules += _exclude_rules(search)
        constraints, broken = _constraint_rules(search)
        rules += broken
        rules += _first_point_rules(search, constraints)
    return [
        *rules,
        *_points_rules(search),
        *_seeds_rules(search),
        *_objective_rules(search),
        *_learning_rules(search),
        *_stopping_rules(search),
    ]


def _space_rules(search: "SearchConfig") -> Iterator[Rule]:
    for dotted, values in search.space.items():
        path = ("space", dotted)
        label = f"search.space.{dotted}"
        fixed = _why_fixed(dotted)
        if dotted not in setting_fields():
            yield Rule(path, f"unknown setting {dotted}", _nearest(dotted, setting_fields()))
        elif fixed:
            yield Rule(path, f"{dotted} cannot be searched: {fixed}", "set it outside search.space")
        elif isinstance(values, list):
            yield from _list_rules(dotted, values, path, label)
        elif search.method == "grid":
            fix = "list values, or set search.method to random, tpe or gp"
            yield Rule(path, f"{label} is a range, and a grid needs lists", fix)
        else:
            yield from _range_rules(dotted, values, path, label)


def _why_fixed(dotted: str) -> str | None:
    if dotted.partition(".")[0] in CADENCE:
        return "it does not change a trial's result"
    if dotted in HELDOUT:
        return "trials are compared on the same held-out items"
    return None


def _list_rules(
    dotted: str, values: list[Any], path: tuple[str, ...], label: str
) -> Iterator[Rule]:
    for index, value in enumerate(values):
        rule = broken_rule_of(dotted, value)
        if rule:
            fix = mend(label, value, rule)
            yield Rule((*path, index), f"{label}: {rule}, got {shown(value)}", fix)
        if any(_is_same(value, one) for one in values[:index]):
            yield Rule((*path, index), f"{label} lists {value!r} twice", "drop one")
    if dotted == COMPLETION_WEIGHT and None in values and any(value == 1 for value in values):
        message = f"{label} lists null and 1, which are the same weight"
        yield Rule((*path, values.index(None)), message, "drop null")


def _range_rules(dotted: str, values: "Range", path: tuple[str, ...], label: str) -> Iterator[Rule]:
    kind = number_kind(dotted)
    if kind is None:
        yield Rule(path, f"{label} is a range, and {dotted} is no number", "list its values")
        return
    for end in ("low", "high"):
        bound = getattr(values, end)
        if kind == "integer" and not bound.is_integer():
            fix = f"edit {label}"
            yield Rule((*path, end), f"{label}.{end} must be a whole number, got {bound!r}", fix)
            continue
        value = int(bound) if kind == "integer" else bound
        rule = broken_rule_of(dotted, value)
        if rule:
            yield Rule((*path, end), f"{label}.{end}: {rule}, got {value!r}", f"edit {label}")
    if values.low >= values.high:
        message = f"{label}.low must be below high, got {values.low:g} and {values.high:g}"
        yield Rule((*path, "low"), message, "swap them, or list a single value instead")
    if dotted == PLW and values.scale is not None:
        message = f"{label} has a scale of its own, w_p = PLW^0.30103, got {values.scale!r}"
        yield Rule((*path, "scale"), message, "drop scale")
    elif values.scale == "log" and values.low <= 0:
        message = f"{label}.low must be above 0 on a log scale, got {values.low:g}"
        yield Rule((*path, "low"), message, "raise low, or take scale: linear")


def _exclude_rules(search: "SearchConfig") -> Iterator[Rule]:
    if search.exclude and search.method != "grid":
        yield Rule(("exclude",), "search.exclude is for a grid", "use search.constraints")
        return
    broken = False
    for index, point in enumerate(search.exclude):
        for rule in _point_rules(search, point, ("exclude", index)):
            broken = True
            yield rule
    if search.exclude and not broken and next(grid_points(search), None) is None:
        yield Rule(("exclude",), "search.exclude leaves no point of the grid", "exclude less")


def _point_rules(
    search: "SearchConfig", point: Mapping[str, Any], path: tuple[str | int, ...]
) -> Iterator[Rule]:
    """Whether the values of a point, perhaps not all of them, are in the space."""
    for dotted, value in point.items():
        label = ".".join(["search", str(path[0]), dotted])
        if dotted not in search.space:
            yield Rule((*path, dotted), f"{dotted} is not searched", _nearest(dotted, search.space))
        elif not is_in(search.space[dotted], dotted, value):
            there = _shown_values(search.space[dotted])
            message = f"{label} must be in search.space, got {value!r}"
            yield Rule((*path, dotted), message, f"there: {there}")


def is_in(values: "list[Any] | Range", dotted: str, value: Any) -> bool:
    """Whether `value` is one of a list, or lies in a range and has its type."""
    if isinstance(values, list):
        return any(_is_same(value, one) for one in values)
    return broken_rule_of(dotted, value) is None and (
        value is not None and values.low <= value <= values.high
    )


def _is_same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _shown_values(values: "list[Any] | Range") -> str:
    if isinstance(values, list):
        return ", ".join(repr(value) for value in values)
    return f"{values.low:g} to {values.high:g}"


def _constraint_rules(search: "SearchConfig") -> tuple[list[Constraint], list[Rule]]:
    if search.constraints and search.method == "grid":
        fix = "use search.exclude"
        return [], [Rule(("constraints",), "search.constraints are not for a grid", fix)]
    read: list[Constraint] = []
    rules: list[Rule] = []
    for index, text in enumerate(search.constraints):
        path = ("constraints", index)
        label = f"search.constraints: {text!r}"
        try:
            constraint = read_constraint(text)
        except ValueError as error:
            fix = "write it like optimizer.learning_rate * schedule.epochs <= 1e-4"
            rules.append(Rule(path, f"{label} {error}", fix))
            continue
        unknown = sorted(constraint.names - set(search.space))
        if unknown:
            message = f"{label} names {unknown[0]}, which is not searched"
            rules.append(Rule(path, message, _nearest(unknown[0], search.space)))
        elif not constraint.names:
            rules.append(Rule(path, f"{label} names no searched setting", "name one"))
        else:
            try:
                for corner in corners(search):
                    constraint.holds(corner)
            except TypeError as error:
                rules.append(Rule(path, f"{label} fails: {error}", "compare numbers with numbers"))
            else:
                read.append(constraint)
    return read, rules


def _first_point_rules(search: "SearchConfig", constraints: Sequence[Constraint]) -> Iterator[Rule]:
    if search.first_points and search.method == "grid":
        fix = "drop them, or set search.method to random, tpe or gp"
        yield Rule(("first_points",), "search.first_points are not for a grid", fix)
        return
    for index, point in enumerate(search.first_points):
        path = ("first_points", index)
        rules = list(_point_rules(search, point, path))
        yield from rules
        if point in search.first_points[:index]:
            yield Rule(path, f"search.first_points lists {point} twice", "drop one")
        if rules:
            continue
        for constraint in constraints:
            if constraint.names <= set(point) and not constraint.holds(point):
                message = f"search.first_points: {point} breaks the constraint {constraint.text!r}"
                yield Rule(path, message, "change one of them")


def _points_rules(search: "SearchConfig") -> Iterator[Rule]:
    if search.method == "grid":
        if search.points is not None:
            message = f"search.points is not for a grid, which has its own, got {search.points}"
            yield Rule(("points",), message, "drop it, or set search.method to random, tpe or gp")
        num_listed = prod(
            len(values) for values in search.space.values() if isinstance(values, list)
        )
        if num_listed > MAX_GRID_POINTS:
            message = (
                f"search.space lists {num_listed} points, and a grid has {MAX_GRID_POINTS} at most"
            )
            yield Rule(
                ("space",), message, "list fewer values, or set search.method to random or tpe"
            )
        return
    if search.points is None:
        yield Rule(("points",), f"search.points is required for {search.method}", "add it")
        return
    first = len(first_points(search))
    if search.points < first:
        message = (
            f"search.points must hold the first points, {first} with PLW 0 and 1, "
            f"got {search.points}"
        )
        yield Rule(("points",), message, "raise it")


def _seeds_rules(search: "SearchConfig") -> Iterator[Rule]:
    seeds = search.seeds or []
    for index, seed in enumerate(seeds):
        if seed in seeds[:index]:
            yield Rule(("seeds", index), f"search.seeds lists {seed} twice", "drop one")
    if seeds and "seed" in search.space:
        message = "seed is in search.space and search.seeds repeats every point with seeds"
        yield Rule(("seeds",), message, "drop one of the two")


def _objective_rules(search: "SearchConfig") -> Iterator[Rule]:
    for index, name in enumerate(search.objectives):
        path = ("objectives", index)
        if name in _NO_OBJECTIVES:
            message = f"search.objectives: {name} moves with the prompt loss weight itself"
            yield Rule(path, message, f"take of {', '.join(OBJECTIVES)}")
        elif name not in OBJECTIVES:
            message = f"search.objectives: {name!r} is no score"
            yield Rule(path, message, _nearest(name, OBJECTIVES))
        if name in search.objectives[:index]:
            yield Rule(path, f"search.objectives lists {name} twice", "drop one")


def _learning_rules(search: "SearchConfig") -> Iterator[Rule]:
    if search.learn_from and search.method not in ("tpe", "gp"):
        message = f"search.learn_from is for tpe and gp, not for {search.method}"
        yield Rule(("learn_from",), message, "drop it, or change search.method")


def _stopping_rules(search: "SearchConfig") -> Iterator[Rule]:
    if search.stop_when_plw_within is None:
        return
    label = "search.stop_when_plw_within"
    path = ("stop_when_plw_within",)
    if search.method not in ("tpe", "gp"):
        message = f"{label} is for tpe and gp, not for {search.method}"
        yield Rule(path, message, "drop it, or change search.method")
    elif isinstance(search.space.get(PLW, []), list):
        message = f"{label} needs a range of {PLW} in search.space"
        yield Rule(path, message, f"add {PLW}: {{low: 0, high: 1}}")
    elif len(search.objectives) > 1:
        message = f"{label} is for one objective, got {len(search.objectives)}"
        yield Rule(path, message, "drop it, or keep one objective")


def first_points(search: "SearchConfig") -> list[dict[str, Any]]:
    """The user's first points, then PLW 0 and 1 where a range of PLW holds them."""
    points = [dict(point) for point in search.first_points]
    values = search.space.get(PLW)
    if values is not None and not isinstance(values, list):
        for weight in (0.0, 1.0):
            given = any(point.get(PLW) == weight for point in points)
            if values.low <= weight <= values.high and not given:
                points.append({PLW: weight})
    return points


def grid_points(search: "SearchConfig") -> Iterator[dict[str, Any]]:
    """The points of a grid but the excluded ones, the first key changing slowest."""
    for point in _combinations(search.space):
        if not any(holds_values(point, excluded) for excluded in search.exclude):
            yield point


def holds_values(point: Mapping[str, Any], part: Mapping[str, Any]) -> bool:
    """Whether a point has all the values of `part`."""
    return all(dotted in point and _is_same(point[dotted], value) for dotted, value in part.items())


def corners(search: "SearchConfig") -> Iterable[dict[str, Any]]:
    """Points that stand for the space: every value of a list, both ends of a range, not too many.

    Where there are more combinations, each value comes up once, beside the first of the others.
    """
    ends = {dotted: _ends(dotted, values) for dotted, values in search.space.items()}
    if prod(len(values) for values in ends.values()) <= MAX_CORNERS:
        return _combinations(ends)
    first = {dotted: values[0] for dotted, values in ends.items()}
    return ({**first, dotted: value} for dotted, values in ends.items() for value in values)


def _ends(dotted: str, values: "list[Any] | Range") -> list[Any]:
    if isinstance(values, list):
        return values
    if number_kind(dotted) == "integer":
        return [int(values.low), int(values.high)]
    return [values.low, values.high]


def _combinations(space: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    keys = list(space)
    for values in itertools.product(*(space[key] for key in keys)):
        yield dict(zip(keys, values, strict=True))


def _nearest(name: str, valid: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"valid here: {', '.join(valid)}"
