"""`plw export`: write a setting for another training framework."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.options import (
    PATH,
    force_option,
    json_option,
    plw_option,
    set_option,
    verdict_option,
)
from orchestrator.cli.render import print_json
from orchestrator.cli.sweep_argument import SWEEP


@click.command()
@click.argument("source", required=False, type=SWEEP, metavar="[SWEEP | SPEC]")
@click.option(
    "--to",
    "framework",
    required=True,
    type=click.Choice(["trl", "axolotl", "ms-swift"]),
    help="The framework to export to.",
)
@plw_option
@verdict_option
@click.option(
    "-o",
    "--output",
    "out",
    type=PATH,
    help="The main file; data and plugin go to the same folder.",
)
@click.option(
    "--workers",
    "num_workers",
    default=1,
    type=click.IntRange(min=1),
    help="Number of GPUs; the global batch is divided among them.",
)
@click.option("--all-data", "uses_all", is_flag=True, help="Include the held-out examples.")
@set_option
@force_option
@json_option
def export(
    source: str | None,
    framework: Any,
    plw: float | None,
    measure: str | None,
    out: Path | None,
    num_workers: int,
    uses_all: bool,
    overrides: Sequence[str],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Export a sweep's best setting to TRL, axolotl or ms-swift.

    SWEEP is a name in runs/ or a folder; default: the latest. SPEC is the YAML file of a sweep or a
    fine-tune, whose setting is exported. Lists what the framework does differently, and rejects
    settings that it does not support.
    """
    from orchestrator.export.best_setting import load_setting
    from orchestrator.export.frameworks import export_recipe, load_recipe
    from orchestrator.export.output_files import default_out, write_export

    config, reason = load_setting(
        source, measure=measure, plw=plw, uses_all=uses_all, overrides=overrides
    )
    path = out or default_out(framework)
    recipe = load_recipe(config, reason=reason, num_workers=num_workers)
    exported = export_recipe(recipe, framework, path)
    written = write_export(exported, path, overwrite=overwrite)
    if as_json:
        print_json(
            {
                "files": [str(file) for file in written],
                "prompt_loss_weight": config.loss.prompt_loss_weight,
                "reason": reason,
                "notes": exported.notes,
                "command": exported.command,
            }
        )
        return
    click.echo(f"PLW {config.loss.prompt_loss_weight:g}: {reason}")
    for file in written:
        click.echo(f"wrote {file}")
    for note in exported.notes:
        click.echo(f"note: {note}")
    click.echo(f"next: {exported.command}")
