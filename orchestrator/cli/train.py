"""`plw train`: fine-tune one model, from a config or from a sweep's best setting."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from orchestrator.cli.options import PATH, plw_option, set_option, verdict_option
from orchestrator.cli.sweep_argument import SWEEP
from orchestrator.foundation.shell_words import shell_path


@click.command()
@click.argument("config", required=False, type=PATH)
@click.option(
    "--best",
    "sweep",
    type=SWEEP,
    is_flag=False,
    flag_value="",
    metavar="[SWEEP]",
    help="Train the final model with the best setting of a sweep, a name in runs/ or a folder; "
    "without a value: the latest.",
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
@click.option(
    "--ranks",
    "num_ranks",
    type=click.IntRange(min=1),
    help="Ranks on this machine; default: 1, with --best those of a trial of the sweep.",
)
@set_option
def train(
    config: Path | None,
    sweep: str | None,
    output_dir: Path | None,
    measure: str | None,
    plw: float | None,
    uses_all: bool,
    config_only: bool,
    num_ranks: int | None,
    overrides: Sequence[str],
) -> None:
    """Fine-tune one model, from CONFIG or with a sweep's best setting.

    Runs on this machine, without Ray. An interrupted run resumes from its last checkpoint.
    """
    if (config is None) == (sweep is None):
        raise click.UsageError("give either CONFIG or --best [SWEEP]")
    if config is not None:
        if measure is not None or uses_all or config_only:
            raise click.UsageError("--measure, --all-data and --config-only require --best")
        if output_dir is None:
            raise click.UsageError("give --output-dir")
        if plw is not None:
            overrides = [*overrides, f"loss.prompt_loss_weight={plw}"]
        _check_not_a_spec(config)
        _run(config, output_dir, overrides, num_ranks or 1)
    from orchestrator.export.best_setting import best_setting, final_config, find_trained
    from orchestrator.export.model_folder import write_final_config
    from orchestrator.monitoring.lookup import open_sweep

    opened = open_sweep(sweep or None)
    folder = output_dir or opened.relative() / "final"
    best = best_setting(opened, measure, plw)
    chosen = final_config(best, uses_all=uses_all, overrides=overrides)
    written = write_final_config(folder, best, chosen)
    click.echo(f"PLW {chosen.loss.prompt_loss_weight:g}: {best.reason}")
    click.echo(f"wrote {written}")
    trained = None if uses_all or overrides else find_trained(opened, best)
    if trained is not None:
        click.echo(
            f"hint: trial {trained} was trained with the same settings and seed; --all-data, or "
            "another seed with --set seed=N, trains another model"
        )
    if config_only:
        path, output = shell_path(written), shell_path(folder)
        ranks = "" if best.num_ranks == 1 else f" --ranks {best.num_ranks}"
        click.echo(f"next: plw train {path} -o {output}{ranks}")
        click.echo(f"or: torchrun --nproc-per-node N -m trainers {path} --output-dir {output}")
        return
    _run(written, folder, [], num_ranks or best.num_ranks)


def _check_not_a_spec(config: Path) -> None:
    """Check that a file is a training config.

    Raises:
        InputError: it is a sweep spec, or not a mapping in YAML.
    """
    from trainers.foundation.errors import InputError, Problem
    from trainers.foundation.settings_file import find_place, read_yaml

    content = read_yaml(config)
    if "search" not in content:
        return
    name = shlex.quote(str(content.get("name", config.stem)))
    raise InputError(
        Problem(
            message="plw train needs the config of one training, but this is a sweep spec: it has "
            "search",
            where=find_place(content, ("search",), config),
            fix=f"run the sweep with plw sweep {shell_path(config)}, then train with its best "
            f"weight: plw train --best {name}",
        )
    )


def _run(config: Path, output_dir: Path, overrides: Sequence[str], num_ranks: int) -> NoReturn:
    """Train on this machine and exit; several ranks replace this process by torchrun."""
    if num_ranks == 1:
        from trainers.__main__ import run

        sys.exit(run(config, output_dir, overrides))
    _check_gpus(num_ranks)
    sys.stdout.flush()
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    settings = [part for override in overrides for part in ("--set", override)]
    # As with `plw train` on one rank, signals reach the launcher, which passes them to the ranks.
    os.execv(
        launcher[0],
        [
            *launcher,
            f"--nproc-per-node={num_ranks}",
            *("-m", "trainers", str(config), "--output-dir", str(output_dir), *settings),
        ],
    )


def _check_gpus(num_ranks: int) -> None:
    """Check that each rank gets a GPU of its own if this machine has GPUs.

    Raises:
        InputError: it has too few.
    """
    import torch

    from trainers.foundation.errors import InputError, Problem

    num_gpus = torch.cuda.device_count()
    if 0 < num_gpus < num_ranks:
        problem = Problem(
            message=f"{num_ranks} ranks need as many GPUs, but this machine has {num_gpus}",
            where="--ranks",
            fix=f"give --ranks {num_gpus}, or --config-only and train on a larger machine",
        )
        raise InputError(problem)
