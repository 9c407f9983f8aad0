"""`plw logs`: print the log of a trial or of the sweep."""

from contextlib import suppress
from pathlib import Path

import click

from orchestrator.cli.on_cluster import run_on_cluster
from orchestrator.cli.options import PATH, json_option
from orchestrator.cli.render import print_json


@run_on_cluster
@click.command()
@click.argument("trial")
@click.argument("folder", required=False, type=PATH)
@click.option(
    "-f", "--follow", "is_followed", is_flag=True, help="Print new lines until the sweep ends."
)
@click.option(
    "-n",
    "--lines",
    "num_lines",
    type=click.IntRange(min=0),
    help="Number of last lines to print; default: all.",
)
@json_option
def logs(
    trial: str, folder: Path | None, is_followed: bool, num_lines: int | None, as_json: bool
) -> None:
    """Print the log of TRIAL in FOLDER.

    TRIAL is an id or a prefix of one, `sweep` for the output of Ray and the libraries, or
    `untuned` for the scoring of the untuned model. The default FOLDER is the most recently started
    sweep in runs/.
    """
    from orchestrator.monitoring.logs import check_log, find_log, follow, last_lines
    from orchestrator.monitoring.lookup import find_sweep, latest_sweep

    if as_json and is_followed:
        raise click.UsageError("--json does not work with --follow")
    found = latest_sweep(Path("runs")) if folder is None else find_sweep(folder)
    log = find_log(found, trial)
    if not is_followed:
        check_log(log)
    text, end = last_lines(log.path, num_lines) if log.path.exists() else ("", 0)
    if as_json:
        print_json({"path": str(log.path), "lines": text.splitlines()})
        return
    with suppress(KeyboardInterrupt):
        click.echo(text, nl=False)
        for chunk in follow(found, log, end) if is_followed else ():
            click.echo(chunk, nl=False)
