"""`plw train` and `plw export`: from a config, or from a sweep's answer, to a model."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click


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
    from orchestrator.final import final_config, read_best
    from orchestrator.final_folder import write_final

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


COMMANDS: tuple[click.Command, ...] = (train,)
