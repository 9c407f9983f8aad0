"""Check the rules between the fields of a `search` section; violations contain key paths."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from evals.results.scores import RENAMED_SCORES
from orchestrator.spec.constraints import Constraint, read_constraint
from orchestrator.spec.search_fields import OBJECTIVES, Method, Range, SearchFields
from orchestrator.spec.search_points import (
    corner_points,
    grid_points,
    initial_points,
    is_value_in,
)
from orchestrator.spec.setting_fields import (
    COMPLETION_WEIGHT,
    HELDOUT_SETTINGS,
    INTERVAL_SETTINGS,
    PLW,
    number_kind,
    setting_fields,
    violated_rule,
)
from trainers.foundation.renamed_settings import current_name
from trainers.foundation.settings_file import format_value, suggest_fix
from trainers.foundation.suggestions import did_you_mean

_NO_OBJECTIVES = ("loss", "train_loss", "weighted_loss", "heldout_prompt_loss", "prompt_loss")
_SAMPLED: tuple[Method, ...] = ("random", "tpe", "gp")
_MODEL_BASED: tuple[Method, ...] = ("tpe", "gp")
# The methods that support a setting, and the setting to use with the other methods.
_METHODS: dict[str, tuple[tuple[Method, ...], str | None]] = {
    "exclude": (("grid",), "constraints"),
    "constraints": (_SAMPLED, "exclude"),
    "points": (_SAMPLED, None),
    "points_to_evaluate": (_SAMPLED, None),
    "warm_start": (_MODEL_BASED, None),
    "stop_when_plw_within": (_MODEL_BASED, None),
}
# Maximum number of points before exclusion. All points are planned before the first trial, at about
# 2 ms per point.
MAX_GRID_POINTS = 100_000


class Violation(NamedTuple):
    """A violated rule; `key_path` is relative to the section."""

    key_path: tuple[str | int, ...]
    message: str
    fix: str


def violations_error(violations: Sequence[Violation]) -> ValidationError:
    """Return one error for all violations; pydantic prefixes the section's own key path."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError(
                "rule", "{message}", {"message": each.message, "fix": each.fix}
            ),
            loc=each.key_path,
            input=None,
        )
        for each in violations
    ]
    return ValidationError.from_exception_data("search", details)


def find_violations(search: SearchFields) -> list[Violation]:
    """Return all violations in a section whose individual fields are valid."""
    # First, because the other rules look at every value.
    found = list(_grid_size_rules(search))
    if found:
        return found
    found += _space_rules(search)
    # These rules need a valid space.
    if not found:
        found += _exclude_rules(search)
        constraints, violations = _check_constraints(search)
        found += violations
        found += _points_to_evaluate_rules(search, constraints)
    return [
        *found,
        *_method_rules(search),
        *_points_rules(search),
        *_seeds_rules(search),
        *_objective_rules(search),
        *_stopping_rules(search),
    ]


def _grid_size_rules(search: SearchFields) -> Iterator[Violation]:
    if search.method != "grid":
        return
    num_listed = prod(len(values) for values in search.space.values() if isinstance(values, list))
    if num_listed > MAX_GRID_POINTS:
        message = (
            f"a grid must have at most {MAX_GRID_POINTS} points, search.space has {num_listed}"
        )
        yield Violation(
            ("space",), message, "list fewer values, or set search.method to random or tpe"
        )


def _method_rules(search: SearchFields) -> Iterator[Violation]:
    for name, (methods, other) in _METHODS.items():
        if getattr(search, name) and search.method not in methods:
            *others, last = methods
            supported = f"{', '.join(others)} or {last}" if others else last
            message = f"search.{name} requires search.method {supported}, got {search.method}"
            fix = f"use search.{other}" if other else "remove it, or change search.method"
            yield Violation((name,), message, fix)


def _space_rules(search: SearchFields) -> Iterator[Violation]:
    for dotted, values in search.space.items():
        path = ("space", dotted)
        label = f"search.space.{dotted}"
        reason = _reason_not_searchable(dotted)
        current = current_name(dotted)
        if current is not None:
            yield Violation(path, f"{dotted} was renamed to {current}", "use the new name")
        elif dotted not in setting_fields():
            yield Violation(path, f"unknown setting {dotted}", _nearest(dotted, setting_fields()))
        elif reason:
            yield Violation(
                path, f"{dotted} cannot be searched: {reason}", "set it outside search.space"
            )
        elif isinstance(values, list):
            yield from _list_rules(dotted, values, path, label)
        elif search.method == "grid":
            fix = "list the values, or set search.method to random, tpe or gp"
            yield Violation(path, f"{label} is a range, but a grid requires a list", fix)
        else:
            yield from _range_rules(dotted, values, path, label)


def _reason_not_searchable(dotted: str) -> str | None:
    if dotted.partition(".")[0] in INTERVAL_SETTINGS:
        return "it does not affect a trial's result"
    if dotted in HELDOUT_SETTINGS:
        return "all trials share the held-out examples"
    return None


def _list_rules(
    dotted: str, values: list[Any], path: tuple[str, ...], label: str
) -> Iterator[Violation]:
    seen: set[tuple[bool, str]] = set()
    for index, value in enumerate(values):
        rule = violated_rule(dotted, value)
        if rule:
            fix = suggest_fix(label, value, rule)
            yield Violation((*path, index), f"{label}: {rule}, got {format_value(value)}", fix)
        # As is_same_value, but with a set: 1.0 equals 1, and true does not.
        is_whole = isinstance(value, float) and value.is_integer()
        key = (isinstance(value, bool), repr(int(value) if is_whole else value))
        if key in seen:
            yield Violation((*path, index), f"{label} lists {value!r} twice", "remove one")
        seen.add(key)
    if dotted == COMPLETION_WEIGHT and None in values and any(value == 1 for value in values):
        message = f"{label} lists null and 1, which are the same weight"
        yield Violation((*path, values.index(None)), message, "remove null")


def _range_rules(
    dotted: str, values: Range, path: tuple[str, ...], label: str
) -> Iterator[Violation]:
    kind = number_kind(dotted)
    if kind is None:
        yield Violation(
            path, f"{label} is a range, but {dotted} is not a number", "list its values"
        )
        return
    for end in ("low", "high"):
        bound = getattr(values, end)
        if kind == "integer" and not bound.is_integer():
            fix = f"edit {label}"
            yield Violation((*path, end), f"{label}.{end} must be an integer, got {bound!r}", fix)
            continue
        value = int(bound) if kind == "integer" else bound
        rule = violated_rule(dotted, value)
        if rule:
            yield Violation((*path, end), f"{label}.{end}: {rule}, got {value!r}", f"edit {label}")
    if values.low >= values.high:
        message = f"{label}.low must be below high, got {values.low:g} and {values.high:g}"
        yield Violation((*path, "low"), message, "swap them, or list a single value")
    if dotted == PLW and values.scale is not None:
        rule = "must be unset, because PLW is sampled in w_p = PLW^0.30103"
        message = f"{label}.scale {rule}, got {values.scale!r}"
        yield Violation((*path, "scale"), message, "remove scale")
    elif values.scale == "log" and values.low <= 0:
        message = f"{label}.low must be above 0 on a log scale, got {values.low:g}"
        yield Violation((*path, "low"), message, "raise low, or set scale: linear")


def _exclude_rules(search: SearchFields) -> Iterator[Violation]:
    if search.method != "grid":
        return
    is_valid = True
    for index, point in enumerate(search.exclude):
        for rule in _point_rules(search, point, ("exclude", index)):
            is_valid = False
            yield rule
    if search.exclude and is_valid and next(grid_points(search), None) is None:
        yield Violation(("exclude",), "search.exclude excludes every point", "exclude fewer")


def _point_rules(
    search: SearchFields, point: Mapping[str, Any], path: tuple[str | int, ...]
) -> Iterator[Violation]:
    """Check that the values of a complete or partial point are in the space."""
    for dotted, value in point.items():
        label = ".".join(["search", str(path[0]), dotted])
        if dotted not in search.space:
            yield Violation(
                (*path, dotted), f"{dotted} is not searched", _nearest(dotted, search.space)
            )
        elif not is_value_in(search.space[dotted], dotted, value):
            valid = _format_values(search.space[dotted])
            message = f"{label} must be in search.space, got {value!r}"
            yield Violation((*path, dotted), message, f"valid here: {valid}")


def _format_values(values: list[Any] | Range) -> str:
    if isinstance(values, list):
        return ", ".join(repr(value) for value in values)
    return f"{values.low:g} to {values.high:g}"


def _check_constraints(search: SearchFields) -> tuple[list[Constraint], list[Violation]]:
    constraints: list[Constraint] = []
    violations: list[Violation] = []
    for index, text in enumerate(search.constraints if search.method in _SAMPLED else ()):
        path = ("constraints", index)
        label = f"search.constraints: {text!r}"
        try:
            constraint = read_constraint(text)
        except ValueError as error:
            fix = "example: optimizer.learning_rate * schedule.epochs <= 1e-4"
            violations.append(Violation(path, f"{label} {error}", fix))
            continue
        unknown = sorted(constraint.names - set(search.space))
        if unknown:
            message = f"{label} names {unknown[0]}, which is not searched"
            violations.append(Violation(path, message, _nearest(unknown[0], search.space)))
        elif not constraint.names:
            violations.append(
                Violation(
                    path, f"{label} names no searched setting", "use a setting of search.space"
                )
            )
        else:
            try:
                for corner in corner_points(search):
                    constraint.holds(corner)
            except TypeError as error:
                violations.append(
                    Violation(
                        path, f"{label} cannot be computed: {error}", "compare numbers with numbers"
                    )
                )
            else:
                constraints.append(constraint)
    return constraints, violations


def _points_to_evaluate_rules(
    search: SearchFields, constraints: Sequence[Constraint]
) -> Iterator[Violation]:
    if search.method == "grid":
        return
    for index, point in enumerate(search.points_to_evaluate):
        path = ("points_to_evaluate", index)
        violations = list(_point_rules(search, point, path))
        yield from violations
        if point in search.points_to_evaluate[:index]:
            yield Violation(path, f"search.points_to_evaluate lists {point} twice", "remove one")
        if violations:
            continue
        for constraint in constraints:
            if constraint.names <= set(point) and not constraint.holds(point):
                message = f"search.points_to_evaluate: {point} violates {constraint.text!r}"
                yield Violation(path, message, "change the point or the constraint")


def _points_rules(search: SearchFields) -> Iterator[Violation]:
    if search.method == "grid":
        return
    if search.points is None:
        yield Violation(
            ("points",), f"search.points is required for {search.method}", "set search.points"
        )
        return
    num_initial = len(initial_points(search))
    if search.points < num_initial:
        message = (
            f"search.points must be at least {num_initial}, the number of points to evaluate with "
            f"PLW 0 and 1, got {search.points}"
        )
        yield Violation(("points",), message, "raise search.points")


def _seeds_rules(search: SearchFields) -> Iterator[Violation]:
    seeds = search.seeds or []
    for index, seed in enumerate(seeds):
        if seed in seeds[:index]:
            yield Violation(("seeds", index), f"search.seeds lists {seed} twice", "remove one")
    if seeds and "seed" in search.space:
        message = "seed must not be in search.space if search.seeds is set"
        yield Violation(("seeds",), message, "remove one of them")


def _objective_rules(search: SearchFields) -> Iterator[Violation]:
    for index, name in enumerate(search.objectives):
        path = ("objectives", index)
        if name in _NO_OBJECTIVES:
            message = f"search.objectives: {name} depends on the prompt loss weight by definition"
            yield Violation(path, message, f"valid here: {', '.join(OBJECTIVES)}")
        elif name not in OBJECTIVES:
            if name in RENAMED_SCORES:
                message = f"search.objectives: {name} was renamed to {RENAMED_SCORES[name]}"
                yield Violation(path, message, "use the new name")
            else:
                message = f"search.objectives: {name!r} is not an objective"
                yield Violation(path, message, _nearest(name, OBJECTIVES))
        if name in search.objectives[:index]:
            yield Violation(path, f"search.objectives lists {name} twice", "remove one")


def _stopping_rules(search: SearchFields) -> Iterator[Violation]:
    if search.stop_when_plw_within is None or search.method not in _MODEL_BASED:
        return
    label = "search.stop_when_plw_within"
    path = ("stop_when_plw_within",)
    if isinstance(search.space.get(PLW, []), list):
        message = f"{label} requires a range of {PLW} in search.space"
        yield Violation(path, message, f"add {PLW}: {{low: 0, high: 1}}")
    elif len(search.objectives) > 1:
        message = f"{label} requires a single objective, got {len(search.objectives)}"
        yield Violation(path, message, "remove it, or keep one objective")


def _nearest(name: str, valid: Iterable[str]) -> str:
    return did_you_mean(name, valid, cutoff=0.5) or f"valid here: {', '.join(valid)}"
