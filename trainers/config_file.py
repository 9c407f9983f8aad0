"""Read a YAML file into a settings model, with every problem named by file and line."""

import difflib
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedBase
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from trainers.errors import InputError, Problem

KeyPath = tuple[str | int, ...]
T = TypeVar("T", bound=BaseModel)


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
        raise InputError(Problem(message="no such file", where=str(path))) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Problem(message=f"cannot be read: {error}", where=str(path))) from None
    try:
        content = YAML(typ="rt").load(text)
    except DuplicateKeyError as error:
        raise InputError(_yaml_problem(path, error, f"{error.problem}")) from None
    except MarkedYAMLError as error:
        raise InputError(_yaml_problem(path, error, f"not valid YAML: {error.problem}")) from None
    except YAMLError as error:  # A character that YAML does not allow, found before any line.
        fault = str(error).partition("\n")[0]
        raise InputError(Problem(message=f"not valid YAML: {fault}", where=str(path))) from None
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


def _yaml_problem(path: Path, error: MarkedYAMLError, message: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line = f":{mark.line + 1}" if mark else ""
    return Problem(message=message, where=f"{path}{line}")


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
    where = f"{source}:{line}" if line else str(source)
    dotted = ".".join(str(key) for key in key_path)
    if detail["type"] == "rule":  # One that says itself what is wrong and how to mend it.
        return Problem(message=detail["msg"], where=where, fix=detail["ctx"]["fix"])
    if detail["type"] == "extra_forbidden":
        return Problem(
            message=f"unknown key {dotted}",
            where=where,
            fix=_nearest_key(model, key_path),
        )
    if detail["type"] == "missing":
        return Problem(message=f"{dotted} is required", where=where, fix=f"add {dotted}")
    rule = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "model_type":
        rule = "must be a group of settings"
    if detail["type"] == "too_short":
        least = detail["ctx"]["min_length"]
        rule = f"needs at least {least} value{'' if least == 1 else 's'}"
    rule = rule[0].lower() + rule[1:]
    shown = detail["input"]
    if not dotted or isinstance(shown, Mapping):
        return Problem(message=f"{dotted}: {rule}" if dotted else rule, where=where)
    return Problem(message=f"{dotted}: {rule}, got {shown!r}", where=where, fix=f"edit {dotted}")


def _nearest_key(model: type[BaseModel], key_path: KeyPath) -> str:
    valid = _valid_keys(model, key_path[:-1])
    near = difflib.get_close_matches(str(key_path[-1]), valid, n=1, cutoff=0.5)
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
