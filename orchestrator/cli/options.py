"""Define options and arguments that several commands share."""

import json
from collections.abc import Callable, Sequence
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
    help="Override a setting of the file; can be repeated.",
)
notify_option = click.option(
    "--notify",
    metavar="COMMAND",
    envvar="PLW_NOTIFY",
    help="Run this shell command at the end of the sweep, with PLW_STATE, PLW_SWEEP, PLW_FOLDER "
    "and PLW_EXIT_CODE in its environment; default: PLW_NOTIFY.",
)
plw_option = click.option(
    "--plw", type=click.FloatRange(0, 1), help="Use this prompt loss weight, whatever the verdict."
)
ADDRESS = (
    "Ray cluster, as in RAY_ADDRESS: auto, HOST:6379, ray://HOST:10001, or its dashboard "
    "http://HOST:8265"
)
verdict_option = click.option(
    "--measure",
    metavar="NAME",
    help="Use the sweep's verdict on this measure, even if it names no best PLW.",
)


def spec_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add SPEC and the options that override it.

    The command gets the loaded spec, its path and the overrides of --set.
    """

    @click.argument("spec", type=PATH)
    @click.option("-o", "--output-dir", type=click.Path(), help="Override the spec's output_dir.")
    @click.option("--tracking-uri", help="Override the spec's MLflow tracking URI.")
    @click.option(
        "--address",
        envvar="RAY_ADDRESS",
        help=f"{ADDRESS}; default: RAY_ADDRESS, else this machine.",
    )
    @set_option
    @wraps(command)
    def with_spec(
        spec: Path,
        output_dir: str | None,
        tracking_uri: str | None,
        overrides: Sequence[str],
        **rest: Any,
    ) -> Any:
        from orchestrator.spec.error_locations import add_line_numbers
        from orchestrator.spec.sweep_spec import load_spec
        from trainers.foundation.errors import InputError

        changes = list(overrides)
        if output_dir is not None:
            changes.append(f"output_dir={json.dumps(output_dir)}")
        if tracking_uri is not None:
            changes.append(f"tracking.uri={json.dumps(tracking_uri)}")
        loaded = load_spec(spec, changes)
        try:
            return command(loaded, spec, overrides=overrides, **rest)
        except InputError as error:
            raise add_line_numbers(error, spec, changes) from None

    return with_spec
