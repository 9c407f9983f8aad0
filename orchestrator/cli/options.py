"""Define options and arguments that several commands share."""

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
force_option = click.option("--force", "overwrite", is_flag=True, help="Overwrite existing files.")
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="Override a setting; can be repeated.",
)
plw_option = click.option(
    "--plw", type=click.FloatRange(0, 1), help="Use this prompt loss weight in any case."
)
verdict_option = click.option(
    "--measure",
    metavar="NAME",
    help="Use the sweep's verdict on this measure, even if it names no best PLW.",
)
folder_argument = click.argument("folder", type=PATH)


def spec_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add SPEC and the options that override it; the command gets the loaded spec and its path."""

    @click.argument("spec", type=PATH)
    @click.option("-o", "--output-dir", type=click.Path(), help="Override the spec's output_dir.")
    @click.option("--tracking-uri", help="Override the spec's MLflow tracking URI.")
    @click.option(
        "--address",
        envvar="RAY_ADDRESS",
        help="Address of the Ray cluster to run on; default: this machine.",
    )
    @wraps(command)
    def with_spec(
        spec: Path,
        output_dir: str | None,
        tracking_uri: str | None,
        **rest: Any,
    ) -> Any:
        from orchestrator.spec.error_locations import add_line_numbers
        from orchestrator.spec.sweep_spec import load_spec
        from trainers.foundation.errors import InputError

        overrides: list[str] = []
        if output_dir is not None:
            overrides.append(f"output_dir={json.dumps(output_dir)}")
        if tracking_uri is not None:
            overrides.append(f"tracking.uri={json.dumps(tracking_uri)}")
        loaded = load_spec(spec, overrides)
        try:
            return command(loaded, spec, **rest)
        except InputError as error:
            raise add_line_numbers(error, spec, overrides) from None

    return with_spec
