"""Options and arguments that several commands share."""

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`, for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def folder_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """FOLDER, where a sweep is."""
    return click.argument("folder", type=click.Path(path_type=Path))(command)


def spec_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    """SPEC, read and checked, with the options that override parts of it."""

    @click.argument("spec", type=click.Path(path_type=Path))
    @click.option("-o", "--output-dir", type=click.Path(), help="Instead of the spec's output_dir.")
    @click.option("--tracking-uri", help="MLflow tracking URI, instead of the spec's.")
    @click.option(
        "--address", envvar="RAY_ADDRESS", help="Ray cluster to run on; default: this machine."
    )
    @wraps(command)
    def with_spec(
        spec: Path,
        output_dir: str | None,
        tracking_uri: str | None,
        **rest: Any,
    ) -> Any:
        from orchestrator.spec.located import with_lines
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
            raise with_lines(error, spec, overrides) from None

    return with_spec
