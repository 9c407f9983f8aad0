"""Read a YAML file into a settings model, with every problem named by file and line."""

import datetime
import difflib
import math
import re
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedBase, TaggedScalar
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError, YAMLWarning
from ruamel.yaml.nodes import Node, ScalarNode

from trainers.foundation.errors import InputError, Problem

KeyPath = tuple[str | int, ...]
T = TypeVar("T", bound=BaseModel)

_OF_KEY = ".[key]"  # how pydantic names the key of a mapping instead of its value
_MAX_SHOWN = 200  # characters of a value
# What YAML 1.1 took for switches, and 1.2 takes for text.
_OLD_SWITCHES = ("yes", "no", "on", "off", "y", "n")
# How to mend what the parser's words say, or else what it was within when it stopped.
_YAML_PROBLEMS = {
    "'\\t'": "indent with spaces",
    "undefined alias": "mark what it stands for with & first",
    "for merging": "merge a mapping, or drop the << key",
    "another document": "keep one document, without lines of --- or ...",
}
_YAML_FIXES = {
    "a flow sequence": "close the [ of line {}",
    "a flow mapping": "close the {{ of line {}",
    "a quoted scalar": "close the quote of line {}",
    "a block mapping": "indent alike what belongs to the group that begins in line {}",
    "a block collection": "indent alike what belongs to the list that begins in line {}",
}


def load_config(model: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """The settings in `path`, with `a.b=value` overrides applied on top.

    Raises:
        InputError: the file cannot be read, is not YAML, or breaks rules of `model`.
    """
    content = read_yaml(path)
    for override in overrides:
        apply_override(content, override)
    return build_config(model, content, source=path)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; nested mappings remember their lines."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        fix = "correct the path, or write such a file with plw init"
        raise InputError(Problem(message="no such file", where=str(path), fix=fix)) from None
    except (OSError, UnicodeDecodeError) as error:
        fault = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        fix = "give a YAML file"
        problem = Problem(message=f"cannot be read: {fault}", where=str(path), fix=fix)
        raise InputError(problem) from None
    try:
        with warnings.catch_warnings():
            # Of 1e-4 under YAML 1.1, which is read as a number all the same.
            warnings.simplefilter("ignore", YAMLWarning)
            content = YAML(typ="rt").load(text)
    except DuplicateKeyError as error:
        fix = "keep one of the two"
        raise InputError(_yaml_problem(path, error, f"{error.problem}", fix)) from None
    except MarkedYAMLError as error:
        message = f"not valid YAML: {error.problem}"
        raise InputError(_yaml_problem(path, error, message, _yaml_fix(error))) from None
    except YAMLError as error:  # A character that YAML does not allow, found before any line.
        fault = str(error).partition("\n")[0]
        raise InputError(Problem(message=f"not valid YAML: {fault}", where=str(path))) from None
    except RecursionError:
        raise InputError(
            Problem(message="nested too deeply", where=str(path), fix="close the brackets")
        ) from None
    except ValueError as error:  # A date, or another value that spells none of its kind.
        raise InputError(_bad_value(path, text, error)) from None
    if not isinstance(content, dict):
        raise InputError(
            Problem(
                message="must hold a mapping of settings",
                where=str(path),
                fix="start from a file in examples/",
            )
        )
    return content


def build_config(model: type[T], content: Mapping[str, Any], source: Path) -> T:
    """`model` built from `content`, or one InputError that lists every broken rule."""
    try:
        return model.model_validate(_plain(content))
    except ValidationError as error:
        problems = [_problem(model, content, source, dict(detail)) for detail in error.errors()]
        raise InputError(problems) from None


def line_of(content: Any, key_path: KeyPath) -> int | None:
    """The 1-based line at which the deepest known part of `key_path` stands, if known."""
    line: int | None = None
    for key in key_path:
        if not isinstance(content, CommentedBase):
            break
        position = (content.lc.data or {}).get(key)
        if position is not None:
            line = position[0] + 1
        try:
            content = content[key]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            break
    return line


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


def _bad_value(path: Path, text: str, error: ValueError) -> Problem:
    """The value that YAML takes for a date or number and cannot read, with its line."""
    fault = str(error).partition(":")[0]
    for node in _scalars(YAML(typ="rt").compose(text)):
        try:
            YAML(typ="rt").constructor.construct_document(node)
        except ValueError:
            kind = str(node.tag).rpartition(":")[2]
            return Problem(
                message=f"{shown(node.value)} cannot be read as {kind}: {fault}",
                where=f"{path}:{node.start_mark.line + 1}",
                fix="put it in quotes if it is a text, or write another value",
            )
    return Problem(message=f"a value cannot be read: {fault}", where=str(path))


def _scalars(node: Node | None) -> Iterator[ScalarNode]:
    if isinstance(node, ScalarNode):
        yield node
    elif node is not None:
        for item in node.value:
            for part in item if isinstance(item, tuple) else (item,):
                yield from _scalars(part)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _problem(
    model: type[BaseModel], content: Mapping[str, Any], source: Path, detail: dict[str, Any]
) -> Problem:
    key_path: KeyPath = detail["loc"]
    line = line_of(content, key_path)
    if detail["type"] == "value_error" and not key_path:
        line = line_of_named(content, detail["msg"])
    where = f"{source}:{line}" if line else str(source)
    dotted = ".".join(str(key) for key in key_path)
    match detail["type"]:
        case "rule":  # One that says itself what is wrong and how to mend it.
            return Problem(message=detail["msg"], where=where, fix=detail["ctx"]["fix"])
        case "extra_forbidden":
            nearest = _nearest_key(model, key_path)
            return Problem(message=f"unknown key {dotted}", where=where, fix=nearest)
        case "missing":
            return Problem(message=f"{dotted} is required", where=where, fix=f"add {dotted}")
    message, fix = _value_problem(dotted, detail)
    return Problem(message=message, where=where, fix=fix)


def _value_problem(dotted: str, detail: Mapping[str, Any]) -> tuple[str, str | None]:
    """What is wrong with a value, and how to mend it."""
    rule, value = _rule(detail), detail["input"]
    if dotted.endswith(_OF_KEY) or detail["type"] == "invalid_key":
        section = dotted.removesuffix(_OF_KEY).rpartition(".")[0]
        message = f"{section}: a key must be a text, got {shown(value)}".removeprefix(": ")
        return message, "put the key in quotes, or give another one"
    if not dotted:
        return rule, None
    if isinstance(value, Mapping):
        # Of a rule between settings, the message says what to do with which.
        fix = None if detail["type"] == "value_error" else f"edit {dotted}"
        return f"{dotted}: {rule}", fix
    return f"{dotted}: {rule}, got {shown(value)}", mend(dotted, value, rule)


def _rule(detail: Mapping[str, Any]) -> str:
    """The rule that was broken, in words of ours where pydantic's are those of Python."""
    kind = detail["type"]
    if kind == "model_type":
        return "must be a group of settings"
    if kind == "dict_type":
        return "must be a group of keys and values"
    if kind == "too_short":
        least = detail["ctx"]["min_length"]
        return f"needs at least {least} value{'' if least == 1 else 's'}"
    rule = str(detail["msg"]).removeprefix("Value error, ")
    return rule[0].lower() + rule[1:]


def shown(value: Any) -> str:
    """A value as an error shows it: as Python does, but as YAML does what Python spells its way."""
    if isinstance(value, TaggedScalar):
        return f"{value.tag} {value.value}"
    if isinstance(value, datetime.date):
        return value.isoformat()
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def mend(dotted: str, value: Any, rule: str) -> str:
    """What to do with a value that breaks `rule`; often it has the wrong type."""
    if isinstance(value, TaggedScalar):
        return f"drop {value.tag}"
    if "boolean" in rule and str(value).lower() in _OLD_SWITCHES:
        return "write true or false"
    if "number" in rule or "integer" in rule:
        with suppress(ValueError):
            if isinstance(value, str) and math.isfinite(float(value)):
                return f"write {float(value):g}, without quotes"
    if "string" in rule and isinstance(value, int | float | datetime.date):
        return "put it in quotes"
    if "group" in rule and value is None:
        return f"give {dotted} settings, or leave it out"
    return f"edit {dotted}"


def line_of_named(content: Mapping[str, Any], message: str) -> int | None:
    """The line of the first setting that `message` names, by its dotted path, and that is set."""
    for dotted in re.findall(r"\w+(?:\.\w+)+", message):
        keys = dotted.split(".")
        section: Any = content
        for key in keys[:-1]:
            section = section.get(key) if isinstance(section, Mapping) else None
        if isinstance(section, Mapping) and keys[-1] in section:
            return line_of(content, tuple(keys))
    return None


def _nearest_key(model: type[BaseModel], key_path: KeyPath) -> str:
    valid = _valid_keys(model, key_path[:-1])
    key = str(key_path[-1])
    # `workers` is meant for workers_per_trial, though `scorers` has more letters in common.
    begun = [name for name in valid if name.startswith(f"{key}_")]
    near = begun or difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"valid here: {', '.join(sorted(valid))}"


def _valid_keys(model: type[BaseModel], parents: KeyPath) -> list[str]:
    annotation: Any = model
    for key in parents:
        for candidate in _models_in(annotation):
            if str(key) in candidate.model_fields:
                annotation = candidate.model_fields[str(key)].annotation
                break
    return [name for candidate in _models_in(annotation) for name in candidate.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Every settings model that an annotation mentions, through unions and containers."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, list, tuple, dict) or get_args(
        annotation
    ):
        return [model for part in get_args(annotation) for model in _models_in(part)]
    return []


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set the value at a dotted path of `content`, given as `key.path=value` with a YAML value.

    Raises:
        InputError: it reads otherwise, or the path leads through a value.
    """
    dotted, separator, text = override.partition("=")
    keys = dotted.split(".")
    if not separator or not all(keys):
        raise InputError(
            Problem(
                message=f"an override must read key.path=value, got {override!r}",
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
        nested = section.setdefault(key, {})
        if not isinstance(nested, dict):
            raise InputError(Problem(message=f"{key} in {dotted} is not a group of settings"))
        section = nested
    section[keys[-1]] = value
    if isinstance(section, CommentedBase) and section.lc.data:
        # A problem with the new value must not point at the line of the old one.
        section.lc.data.pop(keys[-1], None)
