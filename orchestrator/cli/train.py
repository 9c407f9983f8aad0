"""`plw train`: fine-tune one model, from a config or from a sweep's best setting."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from orchestrator.cli.options import PATH, plw_option, set_option, verdict_option
from orchestrator.foundation.shell_words import shell_path


@click.command()
@click.argument("config", required=False, type=PATH)
@click.option(
    "--best",
    "sweep_folder",
    type=PATH,
    metavar="SWEEP",
    help="Train the final model: use the best setting of the sweep in this folder.",
)
@click.option(
    "-o", "--output-dir", type=PATH, help="Output folder; with --best, default: SWEEP/final."
)
@verdict_option
@plw_option
@click.option(
    "--all-data", "uses_all", is_flag=True, help="With --best: train on held-out examples as well."
)
@click.option(
    "--config-only",
    is_flag=True,
    help="With --best: only write config.yaml, to train elsewhere.",
)
@set_option
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
    """Run one fine-tune on this machine without Ray, from CONFIG or with --best from a sweep.

    An interrupted run resumes from its last checkpoint.
    """
    from trainers.__main__ import run

    if (config is None) == (sweep_folder is None):
        raise click.UsageError("give either CONFIG or --best SWEEP")
    if config is not None:
        if measure is not None or uses_all or config_only:
            raise click.UsageError("--measure, --all-data and --config-only require --best")
        if output_dir is None:
            raise click.UsageError("give --output-dir")
        if plw is not None:
            overrides = [*overrides, f"loss.prompt_loss_weight={plw}"]
        sys.exit(run(config, output_dir, overrides))
    from orchestrator.export.best_setting import final_config, read_best_setting
    from orchestrator.export.model_folder import write_final_config

    assert sweep_folder is not None
    folder = output_dir or sweep_folder / "final"
    best = read_best_setting(sweep_folder, measure, plw)
    chosen = final_config(best, uses_all=uses_all, overrides=overrides)
    written = write_final_config(folder, best, chosen)
    click.echo(f"PLW {chosen.loss.prompt_loss_weight:g}: {best.reason}")
    click.echo(f"wrote {written}")
    if config_only:
        path, output = shell_path(written), shell_path(folder)
        click.echo(f"next: plw train {path} -o {output}")
        click.echo(f"or: torchrun --nproc-per-node N -m trainers {path} --output-dir {output}")
        return
    sys.exit(run(written, folder, []))
