"""`plw train` and `plw export`: from a config, or from a sweep's answer, to a model."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.options import json_option


def _measure_option(command: Any) -> Any:
    return click.option(
        "--measure", metavar="NAME", help="The sweep's measure to go by, also if it names no PLW."
    )(command)


@click.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option(
    "--best",
    "sweep_folder",
    type=click.Path(path_type=Path),
    metavar="SWEEP",
    help="Train the final model: the best setting of the sweep in this folder.",
)
@click.option(
    "-o",
    "--output-dir",
    type=click.Path(path_type=Path),
    help="Where it goes; with --best, by default SWEEP/final.",
)
@_measure_option
@click.option("--plw", type=click.FloatRange(0, 1), help="The prompt loss weight, all the same.")
@click.option(
    "--all-data", "uses_all", is_flag=True, help="With --best: on the held-out examples as well."
)
@click.option(
    "--config-only",
    is_flag=True,
    help="With --best: write config.yaml and stop, to train elsewhere.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE", help="Change one.")
def train(
    config: Path | None,
    sweep_folder: Path | None,
    output_dir: Path | None,
    measure: str | None,
    plw: float | None,
    uses_all: bool,
    config_only: bool,
    overrides: Sequence[str],
) -> None:
    """Run one fine-tune on this machine, without Ray: that of CONFIG, or --best of a sweep.

    A run that was cut goes on from its last checkpoint.
    """
    from trainers.__main__ import run

    if (config is None) == (sweep_folder is None):
        raise click.UsageError("give either CONFIG or --best SWEEP")
    if config is not None:
        if measure is not None or uses_all or config_only:
            raise click.UsageError("--measure, --all-data and --config-only belong to --best")
        if output_dir is None:
            raise click.UsageError("give --output-dir")
        if plw is not None:
            overrides = [*overrides, f"loss.prompt_loss_weight={plw}"]
        sys.exit(run(config, output_dir, overrides))
    from orchestrator.final.folder import write_final
    from orchestrator.final.setting import final_config, read_best

    assert sweep_folder is not None
    folder = output_dir or sweep_folder / "final"
    best = read_best(sweep_folder, measure, plw)
    chosen = final_config(best, uses_all=uses_all, overrides=overrides)
    written = write_final(folder, best, chosen)
    click.echo(f"PLW {chosen.loss.prompt_loss_weight:g}: {best.reason}")
    click.echo(f"wrote {written}")
    if config_only:
        click.echo(f"next: plw train {written} -o {folder}")
        click.echo(f"or: torchrun --nproc-per-node N -m trainers {written} --output-dir {folder}")
        return
    sys.exit(run(written, folder, []))


@click.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="SWEEP_OR_SPEC")
@click.option(
    "--to",
    "framework",
    required=True,
    type=click.Choice(["trl", "axolotl", "ms-swift"]),
    help="The framework to write for.",
)
@click.option("--plw", type=click.FloatRange(0, 1), help="The prompt loss weight, all the same.")
@_measure_option
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    help="The file to start from; data and plugin go beside it.",
)
@click.option(
    "--workers",
    "num_workers",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="GPUs that share the global batch.",
)
@click.option("--all-data", "uses_all", is_flag=True, help="On the held-out examples as well.")
@click.option("--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE", help="Change one.")
@click.option("--force", "is_forced", is_flag=True, help="Replace files that are there.")
@json_option
def export(
    source: Path,
    framework: Any,
    plw: float | None,
    measure: str | None,
    out: Path | None,
    num_workers: int,
    uses_all: bool,
    overrides: Sequence[str],
    is_forced: bool,
    as_json: bool,
) -> None:
    """Write a sweep's best setting, or that of a spec, for TRL, axolotl or ms-swift.

    Says what the framework does differently, and refuses what it cannot express.
    """
    from orchestrator.final.files import default_out, write_export
    from orchestrator.final.frameworks import make_export, read_source
    from orchestrator.final.setting import setting_of

    config, reason = setting_of(
        source, measure=measure, plw=plw, uses_all=uses_all, overrides=overrides
    )
    path = out or default_out(framework)
    made = make_export(read_source(config, reason=reason, num_workers=num_workers), framework, path)
    written = write_export(made, path, is_forced=is_forced)
    if as_json:
        content = {
            "files": [str(file) for file in written],
            "prompt_loss_weight": config.loss.prompt_loss_weight,
            "reason": reason,
            "notes": made.notes,
            "command": made.command,
        }
        click.echo(json.dumps(content, indent=2))
        return
    click.echo(f"PLW {config.loss.prompt_loss_weight:g}: {reason}")
    for file in written:
        click.echo(f"wrote {file}")
    for note in made.notes:
        click.echo(f"note: {note}")
    click.echo(f"next: {made.command}")


COMMANDS: tuple[click.Command, ...] = (train, export)
