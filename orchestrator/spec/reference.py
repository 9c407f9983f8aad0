"""The reference of a sweep spec as Markdown, made from the same schema that checks specs.

python -m orchestrator.spec.reference > docs/spec.md
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.spec.init import spec_schema

Schema = Mapping[str, Any]

_INTRODUCTION = (
    "# The sweep spec\n\n"
    "Every setting of `plw sweep SPEC`, made from the models that check specs (`python -m "
    "orchestrator.spec.reference`). `plw init` writes a commented spec to start from, `plw plan "
    "SPEC` says what one comes to and starts nothing.\n\n"
    "A config for `plw train` is the same without `name`, `output_dir`, `note`, `search`, `evals`, "
    "`resources`, `retries` and `tracking`; what it has can be searched, by its dotted path below "
    "`search.space`. On the command line `--set loss.prompt_loss_weight=0.1` replaces a value.\n"
)
_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most",
           "exclusiveMaximum": "below"}  # fmt: skip
_KINDS = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true, false",
    "string": "text",
    "object": "settings",
    "null": "null",
}
# Numbers that are only there to keep floats and files sane say nothing to people.
_HUGE = 1e6


def spec_reference() -> str:
    """The whole page."""
    schema = spec_schema()
    return "\n".join([_INTRODUCTION, *_sections("", schema, schema["$defs"])])


def _sections(path: str, schema: Schema, models: Schema) -> Iterator[str]:
    """A table of a model's own settings, then its sections, each under its dotted path."""
    rows, below = [], []
    for name, field in schema["properties"].items():
        dotted = f"{path}.{name}" if path else name
        model = _model_of(field, models)
        if model is not None:
            below.append((dotted, model, field))
        if model is None or _is_optional(field):
            rows.append((name, field, name in schema.get("required", ())))
    if path:
        yield f"## {path}\n"
        if "description" in schema:
            yield f"{_one_line(schema['description'])}\n"
    if rows:
        yield "| setting | value | default | what it is |"
        yield "|---|---|---|---|"
        for name, field, is_required in rows:
            default = "required" if is_required else _default(field)
            yield f"| `{name}` | {_value(field, models)} | {default} | {_text(field, models)} |"
        yield ""
    for dotted, model, field in below:
        suffix = " (each)" if field.get("type") == "array" else ""
        yield from _sections(f"{dotted}{suffix}", model, models)


def _default(field: Schema) -> str:
    return _shown(field["default"]) if "default" in field else "none"


def _text(field: Schema, models: Schema) -> str:
    """What a field is: in its own words, else in those of the section that it holds."""
    model = _model_of(field, models) or {}
    return _one_line(field.get("description") or model.get("description", ""))


def _model_of(field: Schema, models: Schema) -> Schema | None:
    """The section that a field holds, or that each of its items is."""
    if field.get("type") == "array":
        field = field["items"]
    for part in (field, *field.get("anyOf", ())):
        if "$ref" in part:
            found: Schema = models[part["$ref"].split("/")[-1]]
            return found if "properties" in found else None
    return None


def _is_optional(field: Schema) -> bool:
    """Whether a section can be left out as a whole, or there may be several."""
    return field.get("type") == "array" or any(
        part.get("type") == "null" for part in field.get("anyOf", ())
    )


def _value(field: Schema, models: Schema) -> str:  # noqa: PLR0911 (one a kind)
    """What may stand there, in words."""
    match field:
        case {"$ref": name}:
            model = models[name.split("/")[-1]]
            return "a section" if "properties" in model else _value(model, models)
        case {"anyOf": parts}:
            return " or ".join(dict.fromkeys(_value(part, models) for part in parts))
        case {"enum": values}:
            return ", ".join(_shown(value) for value in values)
        case {"const": value}:
            return _shown(value)
        case {"items": item}:
            return f"list of: {_value(item, models)}"
        case {"additionalProperties": dict(item)}:
            return f"by name: {_value(item, models)}"
    kind = field.get("type", "")
    bounds = [
        f"{words} {field[key]:g}"
        for key, words in _BOUNDS.items()
        if key in field and abs(field[key]) < _HUGE
    ]
    return " ".join([_KINDS.get(kind, "anything"), *bounds])


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "see below"
    return f"`{json.dumps(value) if not isinstance(value, str) else value}`"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(spec_reference(), end="")
