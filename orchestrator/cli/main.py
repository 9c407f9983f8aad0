"""`plw`: plan, run, watch and explain sweeps over the prompt loss weight.

Heavy imports live inside the commands, so that `plw --help` answers at once. A command prints
what it wrote and what to run next; it exits with 0 on success, 1 on a failed run, 2 on bad input.
"""

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from orchestrator import __version__
from orchestrator.cli.options import json_option, spec_arguments

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
COMMAND_MODULES = (
    "analysis",
    "data",
    "final",
    "judge",
    "models",
    "submit",
    "sweeps",
)


class Plw(click.Group):
    """Turns the errors that a user can mend into plain lines and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        from trainers.foundation.errors import InputError, TrainingError

        try:
            return super().invoke(ctx)
        except InputError as error:
            for problem in error.problems:
                click.echo(f"error: {problem}", err=True)
            ctx.exit(2)
        except TrainingError as error:
            click.echo(f"failed: {error}", err=True)
            ctx.exit(1)


@click.group(cls=Plw, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="plw")
def main() -> None:
    """Find out how much the prompt should count in the loss.

    Start with `plw doctor`, then `plw init`, `plw plan SPEC` and `plw sweep SPEC`.
    """
    from orchestrator.foundation.packages import check_packages

    check_packages()
    # Neither a hub's progress bars, nor a line for each time that it is asked again, nor a
    # tokenizer's warning about forks belong on the screen.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # OpenMP threads that spin while they wait made a step 10 to 20 times slower on two cores as
    # soon as a third process was busy; threads that sleep cost about a third on idle ones.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@main.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option(
    "--preset",
    type=click.Choice(["demo", "grid", "bayes", "paper", "paper-regularisers", "wit"]),
    default="demo",
    show_default=True,
    help="demo: four weights on data that is there; grid: five, three seeds each; bayes: weight "
    "and learning rate by TPE; paper: the study of arXiv 2401.13586; "
    "paper-regularisers: its supplementary one; wit: prompt and completion weight, the grid of "
    "arXiv 2507.07817.",
)
@click.option("--schema", "is_schema", is_flag=True, help="The JSON Schema of specs, for editors.")
@click.option("--force", "is_forced", is_flag=True, help="Replace a file that is there.")
@json_option
def init(path: Path | None, preset: Any, is_schema: bool, is_forced: bool, as_json: bool) -> None:
    """Write a spec to start from to PATH, or to sweep.yaml.

    With --schema, print the JSON Schema of specs, or write it to PATH.
    """
    from orchestrator.spec.init import SCHEMA_NAME, spec_schema, write_schema, write_spec

    if is_schema and path is None:
        click.echo(json.dumps(spec_schema(), indent=2))
        return
    written = path or Path("sweep.yaml")
    if is_schema:
        write_schema(written, is_forced=is_forced)
        following = f"begin a spec with: # yaml-language-server: $schema={written.name}"
        if written.name == SCHEMA_NAME:
            following += "   (what plw init writes beside it does)"
    else:
        write_spec(written, preset, is_forced=is_forced)
        following = f"plw plan {written}"
    if as_json:
        click.echo(json.dumps({"path": str(written.absolute()), "next": following}, indent=2))
        return
    click.echo(f"wrote {written}")
    click.echo(f"next: {following}")


@main.command()
@spec_arguments
@json_option
def plan(spec: Any, spec_path: Path, address: str | None, as_json: bool) -> None:
    """List the trials of SPEC and what they will cost. Starts nothing."""
    from orchestrator.cli.screen import print_plan
    from orchestrator.trials.sweep import check, check_cluster, scored_on_this_machine

    prepared = check(spec, address=address)
    where = scored_on_this_machine(spec) if address is None else check_cluster(spec, address)
    if as_json:
        click.echo(prepared.plan.model_dump_json(indent=2))
        return
    print_plan(prepared.plan)
    if where is not None:
        click.echo(f"{'scoring':19}{where}")
    click.echo(f"next: plw sweep {spec_path}")


@main.command()
@spec_arguments
@json_option
def sweep(spec: Any, spec_path: Path, address: str | None, as_json: bool) -> None:
    """Run the trials of SPEC that are not done, score them and write the report."""
    from orchestrator.cli.screen import print_outcome, trials_phrase
    from orchestrator.record.folder import SweepFolder
    from orchestrator.trials.sweep import check, run_sweep
    from orchestrator.watching.typed import typed_log

    prepared = check(spec, address=address)
    if not as_json:
        click.echo(
            f"sweep {spec.name}: {trials_phrase(prepared.plan.num_trials)}, "
            f"{prepared.plan.num_done} done before; log: {typed_log(SweepFolder(spec.folder))}"
        )
    try:
        outcome = run_sweep(spec, prepared, spec_path, address=address, is_silent=as_json)
    except KeyboardInterrupt:
        click.echo("interrupted; the same command goes on from the last checkpoints", err=True)
        sys.exit(1)
    print_outcome(outcome, as_json=as_json)
    sys.exit(1 if outcome.num_failed or outcome.num_unfinished else 0)


@main.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path("runs"), help="Where sweeps go."
)
@click.option("--tracking-uri", help="MLflow tracking URI to look at.")
@json_option
def doctor(folder: Path, tracking_uri: str | None, as_json: bool) -> None:
    """Look at this machine: what is fine for sweeps, what is not, and how to mend it."""
    from orchestrator.cli.doctor import examine
    from orchestrator.cli.screen import print_findings

    findings = examine(folder.absolute(), tracking_uri)
    if as_json:
        click.echo(json.dumps([finding.to_json() for finding in findings], indent=2))
    else:
        print_findings(findings)
    sys.exit(1 if any(finding.verdict == "error" for finding in findings) else 0)


for name in COMMAND_MODULES:
    for command in import_module(f"orchestrator.cli.{name}").COMMANDS:
        main.add_command(command)

if __name__ == "__main__":
    main()
