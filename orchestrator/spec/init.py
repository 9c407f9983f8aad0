"""Specs to start from, and the JSON Schema by which editors complete and check them."""

import json
from pathlib import Path
from typing import Any, Literal, get_args

from orchestrator.foundation.safe_write import write_new
from orchestrator.spec.sweep_spec import SweepSpec

Preset = Literal["demo", "grid", "bayes", "paper", "paper-regularisers", "wit"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
PRESET_FOLDER = Path(__file__).parent / "presets"
SCHEMA_NAME = "plw.schema.json"
EDITOR_LINE = f"# yaml-language-server: $schema={SCHEMA_NAME}"
HOW_TO_COMPLETE = (
    f"# For completion and checks in an editor: plw init --schema {SCHEMA_NAME}, then begin this\n"
    f"# file with: {EDITOR_LINE.removeprefix('# ')}\n"
)


def spec_text(preset: Preset, *, has_schema: bool) -> str:
    """The text of a preset, with the line by which editors find the schema, or how to get it."""
    text = (PRESET_FOLDER / f"{preset}.yaml").read_text(encoding="utf-8")
    return f"{EDITOR_LINE}\n{text}" if has_schema else f"{text}\n{HOW_TO_COMPLETE}"


def write_spec(path: Path, preset: Preset, *, is_forced: bool) -> None:
    """Write a preset to `path`; it names the schema if one lies beside it.

    Raises:
        InputError: there is such a file and `is_forced` is false, or it cannot be written.
    """
    has_schema = (path.parent / SCHEMA_NAME).exists()
    write_new(path, spec_text(preset, has_schema=has_schema), is_forced=is_forced)


def spec_schema() -> dict[str, Any]:
    """The JSON Schema of a sweep spec as people write it."""
    schema = SweepSpec.model_json_schema()
    # Left out, a name is the file's own, and a path may be searched.
    schema["required"] = ["search"]
    for section in ("ModelConfig", "DataConfig"):
        schema["$defs"][section]["required"].remove("path")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def write_schema(path: Path, *, is_forced: bool) -> None:
    """Write the schema to `path`.

    Raises:
        InputError: there is such a file and `is_forced` is false, or it cannot be written.
    """
    write_new(path, json.dumps(spec_schema(), indent=2) + "\n", is_forced=is_forced)
