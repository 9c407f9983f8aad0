"""`plw judge`: validate a judge against people, and compare two files of outputs."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.options import PATH, json_option
from orchestrator.cli.render import print_json

_FIELDS: dict[str, dict[str, Any]] = {
    "--base-url": {"help": "URL of an OpenAI-compatible API, including /v1."},
    "--model": {"help": "Name of the judge at that endpoint."},
    "--local-model": {"help": "Model folder or hub name to serve on this machine."},
    "--name": {"help": "Name of the judge in cache and signature."},
    "--api-key-env": {
        "help": "Environment variable that holds the key, or none; default: OPENAI_API_KEY."
    },
    "--temperature": {"type": float, "help": "Sampling temperature; default: 0."},
    "--max-tokens": {"type": int, "help": "Maximum tokens of a reply; default: 256."},
    "--concurrency": {"type": int, "help": "Concurrent requests; default: 8."},
    "--requests-per-minute": {"type": int, "help": "Limit of the endpoint; default: none."},
    "--timeout-s": {"type": float, "help": "Deadline of one request; default: 120."},
    "--retries": {"type": int, "help": "Retries without a complete reply; default: 8."},
    "--parse-retries": {"type": int, "help": "Retries if a reply holds no verdict; default: 8."},
    "--reasks": {"type": int, "hidden": True},
    "--max-unparsable-share": {
        "type": float,
        "help": "Fail above this share without a verdict; default: 0.05.",
    },
    "--budget": {
        "type": float,
        "help": "Maximum cost of this command; needs prices; default: none.",
    },
    "--price-per-million-input-tokens": {
        "type": float,
        "help": "In the currency of --budget; default: 0.",
    },
    "--price-per-million-output-tokens": {
        "type": float,
        "help": "In the currency of --budget; default: 0.",
    },
    "--cache-dir": {"help": "Folder of cached replies; default: the user's cache folder."},
}


def judge_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the judge's options; the command receives them as the mapping `judge`."""

    @wraps(command)
    def with_judge(judge_config: Path | None, one_order: bool, **rest: Any) -> Any:
        names = [_field_name(option) for option in _FIELDS]
        given = {name: rest.pop(name) for name in names}
        given = {name: value for name, value in given.items() if value is not None}
        if given.get("api_key_env") == "none":
            given["api_key_env"] = None
        if one_order:
            given["both_orders"] = False
        return command(judge_file=judge_config, judge=given, **rest)

    wrapped: Callable[..., Any] = with_judge
    for option, settings in reversed(_FIELDS.items()):
        wrapped = click.option(option, **settings)(wrapped)
    wrapped = click.option("--one-order", is_flag=True, help="Judge each pair in one order only.")(
        wrapped
    )
    return click.option(
        "--judge-config",
        type=PATH,
        help="YAML file of a judge's settings, or a sweep spec with evals.judge.",
    )(wrapped)


@click.group()
def judge() -> None:
    """Judge outputs with an LLM, and measure its agreement with people."""


@judge.command()
@click.option(
    "--data",
    type=PATH,
    required=True,
    help="Pairs with three human verdicts each, as in PandaLM's testset-v1.json.",
)
@click.option(
    "--verdicts",
    type=PATH,
    help="File of a judge's existing verdicts, instead of a judge.",
)
@click.option(
    "--style",
    type=click.Choice(["alpaca_eval", "ranking", "verdict"]),
    default="verdict",
    help="Prompt and form of the reply.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Number of pairs, from the first one.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the bootstrap.")
@click.option("-o", "--output-dir", type=PATH, help="Output folder.")
@judge_options
@json_option
def validate(as_json: bool, **settings: Any) -> None:
    """Compare a judge with three people: accuracy and Cohen's kappa."""
    from orchestrator.cli.judge_commands import validate_judge
    from orchestrator.cli.judge_output import print_validation

    with _progress(as_json) as on_progress:
        validation, judge_cost = validate_judge(on_progress=on_progress, **settings)
    if as_json:
        print_json({**validation.to_json(), "judging": judge_cost})
        return
    print_validation(validation, judge_cost)
    if settings["output_dir"] is not None:
        click.echo(f"wrote {settings['output_dir'] / 'validation.json'}")


@judge.command()
@click.option(
    "--outputs",
    type=PATH,
    required=True,
    help="Candidate: JSON or JSONL file of instruction, input (optional) and output.",
)
@click.option(
    "--reference",
    type=PATH,
    required=True,
    help="Opponent: a file of outputs for the same prompts.",
)
@click.option(
    "--style",
    type=click.Choice(["alpaca_eval", "ranking", "verdict"]),
    default="alpaca_eval",
    help="Prompt and form of the reply.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Number of outputs, from the first one.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the bootstrap.")
@click.option("-o", "--output-dir", type=PATH, required=True, help="Output folder.")
@judge_options
@json_option
def compare(
    as_json: bool,
    output_dir: Path,
    judge_file: Path | None,
    judge: dict[str, Any],
    **settings: Any,
) -> None:
    """Judge two files of outputs, each pair in both orders."""
    from evals.judge.compare import compare_outputs
    from orchestrator.cli.judge_commands import load_judge_config
    from orchestrator.cli.judge_output import print_comparison

    config = load_judge_config(judge_file, judge)
    with _progress(as_json) as on_progress:
        comparison = compare_outputs(
            judge=config, out_dir=output_dir, on_progress=on_progress, **settings
        )
    if as_json:
        print_json(comparison)
    else:
        print_comparison(comparison)
        click.echo(f"wrote {output_dir / 'comparison.json'} and {output_dir / 'judgements.jsonl'}")
    if comparison.missing:
        click.echo(
            f"failed: the budget is reached, {len(comparison.missing)} pairs are missing; the"
            " verdicts so far are cached, run again to spend the same amount",
            err=True,
        )
        sys.exit(1)


@contextmanager
def _progress(is_quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal."""
    if is_quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("judging pairs", total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def _field_name(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")
