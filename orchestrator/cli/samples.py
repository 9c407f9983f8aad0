"""`plw samples`: the prompts, outputs and scores of single items, for Inspect's viewer."""

from pathlib import Path

import click

from orchestrator.cli.options import PATH


@click.command()
@click.argument("scores", type=PATH)
@click.option("-o", "--output-dir", type=PATH, required=True, help="Folder of the logs.")
def samples(scores: Path, output_dir: Path) -> None:
    """Write the samples of a scored model as logs for Inspect's viewer.

    SCORES is a trial of a sweep, its model folder, or an output folder of `plw eval`.
    """
    from evals.results.paired_samples import read_scored_model
    from orchestrator.foundation.shell_words import shell_path
    from orchestrator.report.inspect_log import write_inspect_logs
    from trainers.foundation.files import check_output_folder

    check_output_folder(output_dir, where="--output-dir")
    for path in write_inspect_logs(read_scored_model(scores), output_dir):
        click.echo(f"wrote {path}")
    click.echo(f"next: pip install inspect-ai; inspect view --log-dir {shell_path(output_dir)}")
