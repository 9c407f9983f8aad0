"""Write preset specs, and the JSON Schema that editors use to complete and check specs."""

import json
from pathlib import Path
from typing import Any, Literal, get_args

from orchestrator.foundation.safe_write import write_output
from orchestrator.spec.sweep_spec import SweepSpec
from trainers.data.file_formats import is_data_file
from trainers.foundation.settings_file import read_yaml

Preset = Literal["demo", "grid", "bayes", "paper", "paper-regularisers", "wit"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
PRESET_FOLDER = Path(__file__).parent / "presets"
SCHEMA_NAME = "plw.schema.json"
SCHEMA_COMMENT = f"# yaml-language-server: $schema={SCHEMA_NAME}"
SCHEMA_HINT = (
    f"# Completion and checks in an editor: run plw init --schema {SCHEMA_NAME}, and add the\n"
    f"# first line: {SCHEMA_COMMENT.removeprefix('# ')}\n"
)


def spec_text(preset: Preset, *, has_schema: bool) -> str:
    """Return a preset's text with the schema line for editors, or with a hint on how to add it."""
    text = (PRESET_FOLDER / f"{preset}.yaml").read_text(encoding="utf-8")
    return f"{SCHEMA_COMMENT}\n{text}" if has_schema else f"{text}\n{SCHEMA_HINT}"


def write_spec(path: Path, preset: Preset, *, overwrite: bool) -> None:
    """Write a preset to `path`, with a reference to the schema file if the folder has one.

    Raises:
        InputError: the file exists and `overwrite` is false, or it cannot be written.
    """
    has_schema = (path.parent / SCHEMA_NAME).exists()
    write_output(path, spec_text(preset, has_schema=has_schema), overwrite=overwrite)


def has_data(path: Path) -> bool:
    """Return whether all local data files exist that the spec in `path` names."""
    content = read_yaml(path)
    searched = content["search"]["space"].get("data.path", [])
    paths = [content["data"].get("path"), *searched]
    return all(Path(one).exists() for one in paths if one and is_data_file(Path(one)))


def spec_schema() -> dict[str, Any]:
    """Return the JSON Schema of a sweep spec's YAML file."""
    schema = SweepSpec.model_json_schema()
    # `load_spec` fills in the name, and paths whose values are searched.
    schema["required"] = ["search"]
    schema["$defs"]["ModelConfig"]["required"].remove("path")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def write_schema(path: Path, *, overwrite: bool) -> None:
    """Write the schema to `path`.

    Raises:
        InputError: the file exists and `overwrite` is false, or it cannot be written.
    """
    write_output(path, json.dumps(spec_schema(), indent=2) + "\n", overwrite=overwrite)
