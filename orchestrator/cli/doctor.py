"""`plw doctor`: check this machine."""

import sys
from pathlib import Path

import click

from orchestrator.cli.options import PATH, json_option
from orchestrator.cli.render import print_json

_STYLES = {"ok": "green", "warning": "yellow", "error": "red"}


@click.command()
@click.option("--folder", type=PATH, default=Path("runs"), help="Folder of the sweeps to check.")
@click.option("--tracking-uri", help="MLflow tracking URI to check.")
@json_option
def doctor(folder: Path, tracking_uri: str | None, as_json: bool) -> None:
    """Check this machine, and say how to fix problems."""
    from orchestrator.cli.machine_checks import run_checks

    findings = run_checks(folder.absolute(), tracking_uri)
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            status = click.style(finding.verdict.ljust(8), _STYLES[finding.verdict])
            click.echo(f"{status}{finding.subject.ljust(12)}{finding.detail}")
            if finding.fix:
                click.echo(f"{'':20}fix: {finding.fix}")
    sys.exit(1 if any(finding.verdict == "error" for finding in findings) else 0)
