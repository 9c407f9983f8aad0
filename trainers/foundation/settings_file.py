"""Read a YAML file into a settings model and report every problem with its file and line."""

import datetime
import math
import re
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedBase, CommentedMap, TaggedScalar
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError, YAMLWarning
from ruamel.yaml.nodes import Node, ScalarNode

from trainers.foundation.errors import InputError, Problem
from trainers.foundation.renamed_settings import current_name
from trainers.foundation.suggestions import did_you_mean, did_you_mean_path
from trainers.foundation.yaml_limits import check_depth, check_expansion, read_limited

KeyPath = tuple[str | int, ...]
T = TypeVar("T", bound=BaseModel)

_KEY_SUFFIX = ".[key]"  # pydantic's suffix for an error in the key of a mapping, not in its value
_MAX_SHOWN = 200  # characters of a value
_DATA_SUFFIXES = (".jsonl", ".csv", ".tsv")
_FROM_COMMAND_LINE = [-1, -1, -1, -1]  # in place of line and column of a key and of its value
# Booleans in YAML 1.1, strings in YAML 1.2.
_YAML_1_1_BOOLEANS = ("yes", "no", "on", "off", "y", "n")
# Fixes by the parser's message, or by the construct that it was parsing.
_YAML_PROBLEMS = {
    "'\\t'": "indent with spaces",
    "undefined alias": "define the anchor with & first",
    "for merging": "merge a mapping, or drop the << key",
    "another document": "keep one document; remove lines of --- or ...",
}
_YAML_FIXES = {
    "a flow sequence": "close the [ on line {}",
    "a flow mapping": "close the {{ on line {}",
    "a quoted scalar": "close the quote on line {}",
    "a block mapping": "use one indentation for the group that begins on line {}",
    "a block collection": "use one indentation for the list that begins on line {}",
}


def load_config(model: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """Return the settings in `path`, with `a.b=value` overrides applied.

    Raises:
        InputError: the file cannot be read, is not YAML, or breaks a rule of `model`.
    """
    content = read_yaml(path)
    for override in overrides:
        apply_override(content, override)
    return build_config(model, content, source=path)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; nested mappings keep their line numbers.

    Raises:
        InputError: the file cannot be read, exceeds a limit, or is not a YAML mapping.
    """
    try:
        text = read_limited(path)
    except FileNotFoundError:
        fix = "correct the path, or create a spec with plw init"
        raise InputError(Problem(message="no such file", where=str(path), fix=fix)) from None
    except (OSError, UnicodeDecodeError) as error:
        fault = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        fix = "give a YAML file"
        problem = Problem(message=f"cannot be read: {fault}", where=str(path), fix=fix)
        raise InputError(problem) from None
    check_depth(text, path)
    try:
        with warnings.catch_warnings():
            # ruamel warns that 1e-4 is a string in YAML 1.1, but it reads 1e-4 as a number.
            warnings.simplefilter("ignore", YAMLWarning)
            content = YAML(typ="rt").load(text)
    except DuplicateKeyError as error:
        fix = "keep one of the two"
        raise InputError(_yaml_problem(path, error, f"{error.problem}", fix)) from None
    except MarkedYAMLError as error:
        message = f"not valid YAML: {error.problem}"
        is_data = path.suffix in _DATA_SUFFIXES
        advice = f"give a spec; plw data stats {quote(str(path))} --spec my.yaml writes one"
        problem = _yaml_problem(path, error, message, advice if is_data else _yaml_fix(error))
        raise InputError(problem) from None
    except YAMLError as error:  # YAML does not allow some characters; the error has no line.
        fault = str(error).partition("\n")[0]
        raise InputError(Problem(message=f"not valid YAML: {fault}", where=str(path))) from None
    except RecursionError:
        raise InputError(
            Problem(message="nested too deeply", where=str(path), fix="close the brackets")
        ) from None
    except ValueError as error:  # A date or number cannot be parsed.
        raise InputError(_unparsable_value(path, text, error)) from None
    check_expansion(content, path)
    if not isinstance(content, dict):
        raise InputError(
            Problem(
                message="must be a mapping of settings",
                where=str(path),
                fix="start from a file in examples/",
            )
        )
    return content


def build_config(
    model: type[T], content: Mapping[str, Any], source: Path, *, section: str = ""
) -> T:
    """Return `model` built from `content`.

    `section` is the dotted path of `model` in a sweep spec, if `content` is only that section.

    Raises:
        InputError: `content` breaks rules; the error lists all of them.
    """
    try:
        return model.model_validate(to_builtin(content))
    except ValidationError as error:
        problems = [
            _problem(model, content, source, dict(detail), section) for detail in error.errors()
        ]
        raise InputError(problems) from None


def find_place(content: Any, key_path: KeyPath, source: Path) -> str:
    """Return where the deepest part of `key_path` that `content` has was set.

    This is a line of the file `source`, the command line, or the file if the line is unknown.
    """
    place = str(source)
    for key in key_path:
        if not isinstance(content, CommentedBase):
            break
        position = (content.lc.data or {}).get(key)
        if position == _FROM_COMMAND_LINE:
            return "--set"
        if position is not None:
            place = f"{source}:{position[0] + 1}"
        try:
            content = content[key]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            break
    return place


def _yaml_problem(path: Path, error: MarkedYAMLError, message: str, fix: str | None) -> Problem:
    mark = error.problem_mark or error.context_mark
    line = f":{mark.line + 1}" if mark else ""
    return Problem(message=message, where=f"{path}{line}", fix=fix)


def _yaml_fix(error: MarkedYAMLError) -> str | None:
    for problem, fix in _YAML_PROBLEMS.items():
        if problem in str(error.problem):
            return fix
    context = str(error.context).removeprefix("while parsing ").removeprefix("while scanning ")
    if context not in _YAML_FIXES or error.context_mark is None:
        return None
    return _YAML_FIXES[context].format(error.context_mark.line + 1)


def _unparsable_value(path: Path, text: str, error: ValueError) -> Problem:
    """Return the problem for a value that looks like a date or number but cannot be parsed."""
    fault = str(error).partition(":")[0]
    for node in _scalars(YAML(typ="rt").compose(text)):
        try:
            YAML(typ="rt").constructor.construct_document(node)
        except ValueError:
            kind = str(node.tag).rpartition(":")[2]
            return Problem(
                message=f"{format_value(node.value)} cannot be read as {kind}: {fault}",
                where=f"{path}:{node.start_mark.line + 1}",
                fix="quote it if it is a string, or write another value",
            )
    return Problem(message=f"a value cannot be read: {fault}", where=str(path))


def _scalars(root: Node | None) -> Iterator[ScalarNode]:
    """Yield every scalar once; an alias is the node of its anchor."""
    pending, known = [root], {id(None)}
    while pending:
        node = pending.pop()
        if id(node) in known:
            continue
        known.add(id(node))
        if isinstance(node, ScalarNode):
            yield node
        elif node is not None:
            parts = (item if isinstance(item, tuple) else (item,) for item in node.value)
            pending.extend(reversed([part for item in parts for part in item]))


def to_builtin(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: to_builtin(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_builtin(item) for item in value]
    return value


def _problem(
    model: type[BaseModel],
    content: Mapping[str, Any],
    source: Path,
    detail: dict[str, Any],
    section: str,
) -> Problem:
    key_path: KeyPath = detail["loc"]
    where = find_place(content, key_path, source)
    if detail["type"] == "value_error" and not key_path:
        where = find_setting_place(content, detail["msg"], source) or where
    dotted = ".".join(str(key) for key in key_path)
    match detail["type"]:
        case "rule":  # Our own validators raise it, with a fix.
            return Problem(message=detail["msg"], where=where, fix=detail["ctx"]["fix"])
        case "extra_forbidden":
            current = current_name(f"{section}.{dotted}" if section else dotted)
            if current is not None:
                renamed = f"{dotted} was renamed to {current}"
                return Problem(message=renamed, where=where, fix="use the new name")
            nearest = _nearest_key(model, key_path)
            return Problem(message=f"unknown key {dotted}", where=where, fix=nearest)
        case "missing" if isinstance(key_path[-1], int):  # of a list with a fixed length
            dotted = ".".join(str(key) for key in key_path[:-1])
            got = f"needs {key_path[-1] + 1} values, got {format_value(detail['input'])}"
            return Problem(message=f"{dotted} {got}", where=where, fix=f"edit {dotted}")
        case "missing":
            return Problem(message=f"{dotted} is required", where=where, fix=f"add {dotted}")
    message, fix = _value_problem(dotted, detail)
    return Problem(message=message, where=where, fix=fix)


def _value_problem(dotted: str, detail: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the problem with a value, and its fix."""
    rule, value = _rule(detail), detail["input"]
    if dotted.endswith(_KEY_SUFFIX) or detail["type"] == "invalid_key":
        section = dotted.removesuffix(_KEY_SUFFIX).rpartition(".")[0]
        message = f"{section}: a key must be a string, got {format_value(value)}".removeprefix(": ")
        return message, "quote the key, or use another one"
    if not dotted:
        return rule, None
    if isinstance(value, Mapping):
        # The message of a rule between settings already contains its fix.
        fix = None if detail["type"] == "value_error" else f"edit {dotted}"
        return f"{dotted}: {rule}", fix
    return f"{dotted}: {rule}, got {format_value(value)}", suggest_fix(dotted, value, rule)


def _rule(detail: Mapping[str, Any]) -> str:
    """Return the broken rule; messages of pydantic that use Python terms are reworded."""
    kind = detail["type"]
    if kind == "model_type":
        return "must be a group of settings"
    if kind == "dict_type":
        return "must be a mapping of keys to values"
    if kind == "too_short":
        least = detail["ctx"]["min_length"]
        return f"needs at least {least} value{'' if least == 1 else 's'}"
    rule = str(detail["msg"]).removeprefix("Value error, ")
    return rule[0].lower() + rule[1:]


def format_value(value: Any) -> str:
    """Return a value for an error message: Python's repr, or YAML's form for tags and dates."""
    if isinstance(value, TaggedScalar):
        return f"{value.tag} {value.value}"
    if isinstance(value, datetime.date):
        return value.isoformat()
    try:
        text = repr(value)
    except ValueError:  # Python does not print integers of more than 4300 digits.
        return "an integer of thousands of digits"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def suggest_fix(dotted: str, value: Any, rule: str) -> str:
    """Return the fix for a value that breaks `rule`; often the value has the wrong type."""
    if isinstance(value, TaggedScalar):
        return f"drop {value.tag}"
    if "boolean" in rule and str(value).lower() in _YAML_1_1_BOOLEANS:
        return "write true or false"
    if "number" in rule or "integer" in rule:
        with suppress(ValueError):
            if isinstance(value, str) and math.isfinite(float(value)):
                return f"write {float(value):g}, without quotes"
    if "string" in rule and isinstance(value, int | float | datetime.date):
        return "quote it"
    if "group" in rule and value is None:
        return f"give {dotted} settings, or omit it"
    return f"edit {dotted}"


def find_setting_place(content: Mapping[str, Any], message: str, source: Path) -> str | None:
    """Return the place of the first setting in `content` whose dotted path is in `message`."""
    for dotted in re.findall(r"\w+(?:\.\w+)+", message):
        keys = dotted.split(".")
        section: Any = content
        for key in keys[:-1]:
            section = section.get(key) if isinstance(section, Mapping) else None
        if isinstance(section, Mapping) and keys[-1] in section:
            return find_place(content, tuple(keys), source)
    return None


def _nearest_key(model: type[BaseModel], key_path: KeyPath) -> str:
    valid = _valid_keys(model, key_path[:-1])
    key = str(key_path[-1])
    elsewhere = list(_nested_settings(model))
    # A key without its section: steps means schedule.steps, although profile_steps is similar.
    complete = did_you_mean_path(key, elsewhere, cutoff=1.0) if len(key_path) == 1 else None
    # A prefix takes precedence: `workers` means workers_per_trial, although `scorers` is more
    # similar.
    completed = [name for name in valid if name.startswith(f"{key}_")]
    near = complete or did_you_mean(completed[0] if completed else key, valid, cutoff=0.5)
    near = near or did_you_mean_path(key, elsewhere, cutoff=0.8)
    return near or f"valid here: {', '.join(sorted(valid))}"


def _nested_settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted paths of all settings and groups below the groups of `model`."""
    for name, field in model.model_fields.items():
        if prefix:
            yield f"{prefix}{name}"
        for section in _sections_in(field.annotation):
            yield from _nested_settings(section, f"{prefix}{name}.")


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the settings models of a group, which may be optional; none of lists of groups."""
    is_union = get_origin(annotation) in (Union, types.UnionType)
    parts = get_args(annotation) if is_union else (annotation,)
    return [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]


def _valid_keys(model: type[BaseModel], parents: KeyPath) -> list[str]:
    annotation: Any = model
    for key in parents:
        for candidate in _models_in(annotation):
            if str(key) in candidate.model_fields:
                annotation = candidate.model_fields[str(key)].annotation
                break
    return [name for candidate in _models_in(annotation) for name in candidate.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return every settings model in an annotation, including unions and containers."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, list, tuple, dict) or get_args(
        annotation
    ):
        return [model for part in get_args(annotation) for model in _models_in(part)]
    return []


def apply_override(content: dict[str, Any], override: str, *, flat_section: str = "") -> None:
    """Set the value at a dotted path of `content`, from `key.path=value` with a YAML value.

    Args:
        flat_section: dotted path of a section whose keys contain dots themselves.

    Raises:
        InputError: the override has another form, or part of its path is a value, not a section.
    """
    dotted, separator, text = override.partition("=")
    keys = dotted.split(".")
    if flat_section and dotted.startswith(f"{flat_section}."):
        keys = [*flat_section.split("."), dotted.removeprefix(f"{flat_section}.")]
    if not separator or not all(keys):
        raise InputError(
            Problem(
                message=f"an override must have the form key.path=value, got {override!r}",
                fix="for example optimizer.learning_rate=1e-4",
            )
        )
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError:
        raise InputError(
            Problem(message=f"an override's value must be YAML, got {override!r}", fix="quote it")
        ) from None
    section = content
    for key in keys[:-1]:
        if key not in section:
            _set(section, key, CommentedMap())
        nested = section[key]
        if not isinstance(nested, dict):
            raise InputError(Problem(message=f"{key} in {dotted} is not a group of settings"))
        section = nested
    _set(section, keys[-1], value)


def _set(section: dict[str, Any], key: str, value: Any) -> None:
    section[key] = value
    if isinstance(section, CommentedMap):
        section.lc.add_kv_line_col(key, _FROM_COMMAND_LINE)
