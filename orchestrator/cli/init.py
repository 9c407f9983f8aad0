"""`plw init`: write a sweep spec, or the JSON Schema of specs."""

from pathlib import Path
from typing import Any

import click

from orchestrator.cli.options import PATH, force_option, json_option
from orchestrator.cli.render import print_json
from orchestrator.foundation.shell_words import shell_path


@click.command()
@click.argument("path", required=False, type=PATH)
@click.option(
    "--preset",
    type=click.Choice(["demo", "grid", "bayes", "paper", "paper-regularisers", "wit"]),
    default="demo",
    help="demo: three weights on built-in data; grid: five weights, three seeds each; bayes: "
    "weight and learning rate by TPE; paper: the study of arXiv 2401.13586; "
    "paper-regularisers: its supplementary study; wit: prompt and completion weight, the grid of "
    "arXiv 2507.07817.",
)
@click.option("--schema", "is_schema", is_flag=True, help="The JSON Schema of specs, for editors.")
@force_option
@json_option
def init(path: Path | None, preset: Any, is_schema: bool, overwrite: bool, as_json: bool) -> None:
    """Write a sweep spec to PATH (default: sweep.yaml).

    With --schema, print the JSON Schema of specs, or write it to PATH.
    """
    from orchestrator.spec.init import SCHEMA_NAME, has_data, spec_schema, write_schema, write_spec

    if is_schema and path is None:
        print_json(spec_schema())
        return
    written = path or Path("sweep.yaml")
    if is_schema:
        write_schema(written, overwrite=overwrite)
        next_step = f"begin a spec with: # yaml-language-server: $schema={written.name}"
        if written.name == SCHEMA_NAME:
            next_step += "   (plw init writes this line if the schema is in the same folder)"
    else:
        write_spec(written, preset, overwrite=overwrite)
        next_step = f"plw plan {shell_path(written)}"
    if as_json:
        print_json({"path": str(written.absolute()), "next": next_step})
        return
    edit = "" if is_schema or has_data(written) else "edit the lines marked edit, then: "
    click.echo(f"wrote {written}")
    click.echo(f"next: {edit}{next_step}")
