"""`plw samples`: the prompts, outputs and scores of single items, for Inspect's viewer."""

from pathlib import Path

import click

from orchestrator.cli.options import PATH
from orchestrator.cli.sweep_argument import models_argument


@click.command()
@models_argument(1, "MODEL")
@click.option("-o", "--output-dir", type=PATH, required=True, help="Folder of the logs.")
def samples(models: list[Path], output_dir: Path) -> None:
    """Write the samples of a scored MODEL as logs for Inspect's viewer.

    MODEL is a trial of SWEEP, by id or a prefix of one, or `untuned`; or a folder: a trial, its
    model, or the output of `plw eval`. SWEEP is a name in runs/ or a folder; default: the latest.
    """
    from evals.results.paired_samples import read_scored_model
    from orchestrator.foundation.shell_words import shell_path
    from orchestrator.report.inspect_log import write_inspect_logs
    from trainers.foundation.files import check_output_folder

    check_output_folder(output_dir, where="--output-dir")
    for path in write_inspect_logs(read_scored_model(models[0]), output_dir):
        click.echo(f"wrote {path}")
    click.echo(f"next: pip install inspect-ai; inspect view --log-dir {shell_path(output_dir)}")
