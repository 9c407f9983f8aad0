"""Generate docs/spec.md, the reference of sweep specs, from their JSON Schema.

python -m orchestrator.spec.reference > docs/spec.md
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.spec.init import spec_schema

Schema = Mapping[str, Any]

_INTRODUCTION = """\
# The sweep spec

All settings of `plw sweep SPEC`, generated from the models that check specs \
(`python -m orchestrator.spec.reference`). `plw init` writes a commented spec to start from; \
`plw plan SPEC` shows its trials and costs without starting anything. Relative paths in a spec \
are relative to the current folder, not to the folder of the spec.

A config for `plw train` has the same settings without `name`, `output_dir`, `storage`, \
`keep_models`, `note`, `search`, `evals`, `resources`, `retries` and `tracking`. Each of its \
settings can be searched, by dotted path below `search.space`, except `checkpoint`, `log_*`, \
`profile_steps`, `data.heldout_examples` and `data.seed`. On the command line, \
`--set loss.prompt_loss_weight=0.1` replaces a value.
"""
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}
_TYPES = {"object": "mapping"}
# Larger bounds are not shown, because they only guard against overflow.
_MAX_SHOWN_BOUND = 1e6


def spec_reference() -> str:
    """Return the text of docs/spec.md."""
    schema = spec_schema()
    return "\n".join([_INTRODUCTION, *_sections("", schema, None, schema["$defs"])])


def _sections(path: str, model: Schema, default: Any, models: Schema) -> Iterator[str]:
    """Yield a table of the model's settings, then its subsections by dotted path.

    Args:
        default: default value of the whole section.
    """
    if path:
        yield f"## {path}\n"
        if "description" in model:
            yield f"{_one_line(model['description'])}\n"
    defaults = {name: field.get("default") for name, field in model["properties"].items()}
    if isinstance(default, dict):
        changed = {name: one for name, one in default.items() if one != defaults[name]}
        if changed and not any(isinstance(one, dict) for one in changed.values()):
            yield f"If the section is omitted: {_code(changed)}.\n"
    rows, subsections = [], []
    for name, field in model["properties"].items():
        section = _model_of(field, models)
        if section is None or _is_optional(field):
            shown = "required" if name in model.get("required", ()) else _default(field)
            about = field.get("description") or (section or {}).get("description", "")
            rows.append(f"| `{name}` | {_type(field, models)} | {shown} | {_one_line(about)} |")
        if section is not None:
            each = " (each)" if field.get("type") == "array" else ""
            dotted = f"{path}.{name}{each}".removeprefix(".")
            subsections.append((dotted, section, field.get("default")))
    if rows:
        yield "| setting | type | default | description |"
        yield "|---|---|---|---|"
        yield from rows
        yield ""
    for subsection in subsections:
        yield from _sections(*subsection, models)


def _default(field: Schema) -> str:
    if "default" not in field:
        return "none"
    default = field["default"]
    return "see below" if default and isinstance(default, dict) else _code(default)


def _model_of(field: Schema, models: Schema) -> Schema | None:
    """Return the model of a section or of the items of a list; None for other fields."""
    if field.get("type") == "array":
        field = field["items"]
    for option in (field, *field.get("anyOf", ())):
        if "$ref" in option:
            found: Schema = models[option["$ref"].split("/")[-1]]
            return found if "properties" in found else None
    return None


def _is_optional(field: Schema) -> bool:
    """Return whether a field may be null or repeated; its section then needs a row as well."""
    return field.get("type") == "array" or {"type": "null"} in field.get("anyOf", ())


def _type(field: Schema, models: Schema) -> str:  # noqa: PLR0911 (one return per kind)
    match field:
        case {"$ref": name}:
            model = models[name.split("/")[-1]]
            return "section" if "properties" in model else _type(model, models)
        case {"anyOf": options}:
            return " or ".join(dict.fromkeys(_type(option, models) for option in options))
        case {"enum": values}:
            return ", ".join(_code(value) for value in values)
        case {"const": value}:
            return _code(value)
        case {"items": item}:
            return f"list of {_type(item, models)}"
        case {"additionalProperties": dict(item)}:
            return f"mapping to {_type(item, models)}"
    name = str(field.get("type", "any"))
    bounds = [
        f"{words} {field[key]:g}"
        for key, words in _BOUNDS.items()
        if key in field and abs(field[key]) < _MAX_SHOWN_BOUND
    ]
    return " ".join([_TYPES.get(name, name), *bounds])


def _code(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(spec_reference(), end="")
