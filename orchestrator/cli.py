"""`plw`: plan, run, watch and explain sweeps over the prompt loss weight.

Heavy imports live inside the commands, so that `plw --help` answers at once. A command prints
what it wrote and what to run next; it exits with 0 on success, 1 on a failed run, 2 on bad input.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from orchestrator import __version__

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Plw(click.Group):
    """Turns the errors that a user can mend into plain lines and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        from trainers.errors import InputError, TrainingError

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

    Start with `plw doctor`, then `plw plan SPEC` and `plw sweep SPEC`.
    """
    from orchestrator.packages import check_packages

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


def _json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def _spec_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    @click.argument("spec", type=click.Path(path_type=Path))
    @click.option("-o", "--output-dir", type=click.Path(), help="Instead of the spec's output_dir.")
    @click.option("--tracking-uri", help="MLflow tracking URI, instead of the spec's.")
    @click.option(
        "--address", envvar="RAY_ADDRESS", help="Ray cluster to run on; default: this machine."
    )
    @wraps(command)
    def with_spec(
        spec: Path,
        output_dir: str | None,
        tracking_uri: str | None,
        **rest: Any,
    ) -> Any:
        from orchestrator.spec import load_spec

        overrides: list[str] = []
        if output_dir is not None:
            overrides.append(f"output_dir={json.dumps(output_dir)}")
        if tracking_uri is not None:
            overrides.append(f"tracking.uri={json.dumps(tracking_uri)}")
        return command(load_spec(spec, overrides), spec, **rest)

    return with_spec


@main.command()
@_spec_arguments
@_json_option
def plan(spec: Any, spec_path: Path, address: str | None, as_json: bool) -> None:
    """List the trials of SPEC and what they will cost. Starts nothing."""
    from orchestrator.screen import print_plan
    from orchestrator.sweep import check

    prepared = check(spec, address=address)
    if as_json:
        click.echo(prepared.plan.model_dump_json(indent=2))
        return
    print_plan(prepared.plan)
    click.echo(f"next: plw sweep {spec_path}")


@main.command()
@_spec_arguments
@_json_option
def sweep(spec: Any, spec_path: Path, address: str | None, as_json: bool) -> None:
    """Run the trials of SPEC that are not done, score them and write the report."""
    from orchestrator.screen import print_outcome, trials_phrase
    from orchestrator.sweep import check, run_sweep

    prepared = check(spec, address=address)
    if not as_json:
        click.echo(
            f"sweep {spec.name}: {trials_phrase(len(prepared.plan.trials))}, "
            f"{prepared.plan.num_done} done before; log: {spec.folder / 'sweep.log'}"
        )
    try:
        outcome = run_sweep(spec, prepared, spec_path, address=address, is_silent=as_json)
    except KeyboardInterrupt:
        click.echo("interrupted; the same command goes on from the last checkpoints", err=True)
        sys.exit(1)
    print_outcome(outcome, as_json=as_json)
    sys.exit(1 if outcome.num_failed or outcome.num_unfinished else 0)


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output-dir", type=click.Path(path_type=Path), required=True, help="Where it goes."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE", help="Change one.")
def train(config: Path, output_dir: Path, overrides: Sequence[str]) -> None:
    """Run one fine-tune on this machine, without Ray."""
    from trainers.__main__ import run

    sys.exit(run(config, output_dir, overrides))


@main.command("eval")
@click.argument("model")
@click.option(
    "--data", "data_path", help="Examples to score on; default: the spec's held-out ones."
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="A sweep spec, whose measures, template and held-out examples are used.",
)
@click.option("--template", help="chat, alpaca, plain or a Jinja file; default: the spec's.")
@click.option(
    "--max-length",
    type=click.IntRange(min=8),
    help="Tokens per example; default: the spec's or 512.",
)
@click.option(
    "-o", "--output-dir", type=click.Path(path_type=Path), required=True, help="Where it goes."
)
@_json_option
def evaluate(
    model: str,
    data_path: str | None,
    config: Path | None,
    template: str | None,
    max_length: int | None,
    output_dir: Path,
    as_json: bool,
) -> None:
    """Score MODEL, a folder or hub name, on held-out examples."""
    from orchestrator.screen import print_scores
    from orchestrator.single import evaluate_model

    card = evaluate_model(
        model,
        data_path,
        spec_path=config,
        template=template,
        max_length=max_length,
        output_dir=output_dir,
    )
    if as_json:
        click.echo(card.model_dump_json(indent=2))
        return
    print_scores(card)
    click.echo(f"wrote {output_dir / 'scores.json'} and {output_dir / 'samples.jsonl'}")


@main.group()
def data() -> None:
    """Look at data before it is trained on."""


@data.command()
@click.argument("path")
@click.option("--model", default="demo:smollm2-135m-instruct", help="Whose tokenizer counts.")
@click.option("--template", default="chat", help="chat, alpaca, plain or a Jinja file.")
@click.option("--max-length", type=click.IntRange(min=8), default=512, help="Tokens per example.")
@click.option(
    "--too-long",
    type=click.Choice(["truncate", "drop", "error"]),
    default="truncate",
    help="What happens to longer examples.",
)
@click.option(
    "--completion-turns",
    type=click.Choice(["last", "all"]),
    default="last",
    help="Assistant turns of a chat that are completion.",
)
@click.option("--split", default="train", help="Split of a hub data set.")
@_json_option
def stats(path: str, model: str, as_json: bool, **settings: Any) -> None:
    """Counts, tokens by role and the generation ratio of PATH (a file, hub name or demo:...)."""
    from orchestrator.screen import print_stats
    from orchestrator.single import stats_of
    from trainers.config import DataConfig
    from trainers.config_file import build_config

    config = build_config(DataConfig, {"path": path, **settings}, source=Path("plw data stats"))
    found = stats_of(config, model=model)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        print_stats(path, found)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@_json_option
def status(folder: Path, as_json: bool) -> None:
    """Show the trials of the sweep in FOLDER."""
    from orchestrator.follow import status_rows, status_table
    from orchestrator.screen import console
    from orchestrator.single import open_sweep

    opened = open_sweep(folder)
    if as_json:
        click.echo(json.dumps(status_rows(opened), indent=2))
    else:
        console().print(status_table(opened, skipped=set()))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@_json_option
def report(folder: Path, as_json: bool) -> None:
    """Write the report of the sweep in FOLDER: which PLW, and how sure."""
    from orchestrator.report import report_json, write_report
    from orchestrator.single import open_sweep

    opened = open_sweep(folder)
    if as_json:
        click.echo(json.dumps(report_json(opened), indent=2))
        return
    write_report(opened)
    click.echo(f"wrote {opened.report_md} and {opened.report_html}")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=5000,
    show_default=True,
    help="Port on 127.0.0.1.",
)
def ui(folder: Path, port: int) -> None:
    """Open MLflow where the sweep in FOLDER was tracked."""
    from orchestrator.single import ui_of

    command, page = ui_of(folder, port)
    click.echo(f"MLflow: {page}   (Ctrl-C stops it)")
    if command:
        # Its job workers serve nothing that a sweep has, and would outlive a server that is killed.
        os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
        os.execv(command[0], command)


@main.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path("runs"), help="Where sweeps go."
)
@click.option("--tracking-uri", help="MLflow tracking URI to look at.")
@_json_option
def doctor(folder: Path, tracking_uri: str | None, as_json: bool) -> None:
    """Look at this machine: what is fine for sweeps, what is not, and how to mend it."""
    from orchestrator.doctor import examine
    from orchestrator.screen import print_findings

    findings = examine(folder.absolute(), tracking_uri)
    if as_json:
        click.echo(json.dumps([finding.to_json() for finding in findings], indent=2))
    else:
        print_findings(findings)
    sys.exit(1 if any(finding.verdict == "error" for finding in findings) else 0)


if __name__ == "__main__":
    main()
