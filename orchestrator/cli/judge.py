"""`plw judge`: is a judge to be trusted, and what does it say of two files of outputs?"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.options import json_option

_FIELDS: dict[str, dict[str, Any]] = {
    "--base-url": {"help": "OpenAI-compatible API, up to and with /v1."},
    "--model": {"help": "The judge's name there."},
    "--local-model": {"help": "Serve this model folder or hub name here, and ask that."},
    "--name": {"help": "What the judge is called in cache and signature, instead of its URL."},
    "--api-key-env": {"help": "Environment variable of the key; none: no key is needed."},
    "--temperature": {"type": float},
    "--max-tokens": {"type": int, "help": "Tokens of a reply."},
    "--concurrency": {"type": int, "help": "Requests at once."},
    "--requests-per-minute": {"type": int},
    "--timeout-s": {"type": float, "help": "For one request."},
    "--retries": {"type": int, "help": "Further tries where no whole reply comes."},
    "--reasks": {"type": int, "help": "Further tries where a reply holds no verdict."},
    "--max-unparsable-share": {"type": float, "help": "Above it, judging fails."},
    "--budget": {"type": float, "help": "Money for this command; needs prices."},
    "--price-per-million-input-tokens": {"type": float},
    "--price-per-million-output-tokens": {"type": float},
    "--cache-dir": {"help": "Where replies are kept."},
}


def judge_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say who judges; the command gets them as `judge`, a mapping."""

    @wraps(command)
    def with_judge(judge_config: Path | None, one_order: bool, **rest: Any) -> Any:
        names = [_name(option) for option in _FIELDS]
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
    wrapped = click.option("--one-order", is_flag=True, help="Ask about each pair once.")(wrapped)
    return click.option(
        "--judge-config",
        type=click.Path(path_type=Path),
        help="YAML: a judge's settings, or a sweep spec whose evals.judge is used.",
    )(wrapped)


@click.group()
def judge() -> None:
    """Have a model judge outputs, after seeing how far it agrees with people."""


@judge.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Pairs with three human verdicts each, as in PandaLM's testset-v1.json.",
)
@click.option(
    "--verdicts",
    type=click.Path(path_type=Path),
    help="Verdicts that a judge has given already, instead of asking one.",
)
@click.option(
    "--style", type=click.Choice(["verdict", "ranking"]), default="verdict", show_default=True
)
@click.option("--limit", type=click.IntRange(min=1), help="The first pairs alone.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the bootstrap.")
@click.option("-o", "--output-dir", type=click.Path(path_type=Path), help="Where it goes.")
@judge_options
@json_option
def validate(as_json: bool, **settings: Any) -> None:
    """Score a judge against three people: accuracy and Cohen's kappa."""
    from orchestrator.cli.judge_screen import print_validation
    from orchestrator.cli.judging import validate_judge

    with _progress(as_json) as on_progress:
        validation, spent = validate_judge(on_progress=on_progress, **settings)
    if as_json:
        click.echo(json.dumps({**validation.to_json(), "judging": spent}, indent=2))
        return
    print_validation(validation, spent)
    if settings["output_dir"] is not None:
        click.echo(f"wrote {settings['output_dir'] / 'validation.json'}")


@judge.command()
@click.option(
    "--outputs",
    type=click.Path(path_type=Path),
    required=True,
    help="The candidate's: JSON or JSONL of instruction, input (or none) and output.",
)
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    required=True,
    help="The opponent's, for the same prompts.",
)
@click.option(
    "--style", type=click.Choice(["ranking", "verdict"]), default="ranking", show_default=True
)
@click.option("--limit", type=click.IntRange(min=1), help="The first outputs alone.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the bootstrap.")
@click.option(
    "-o", "--output-dir", type=click.Path(path_type=Path), required=True, help="Where it goes."
)
@judge_options
@json_option
def compare(as_json: bool, output_dir: Path, **settings: Any) -> None:
    """Judge two files of outputs, each pair in both orders."""
    from orchestrator.cli.judge_screen import print_comparison
    from orchestrator.cli.judging import compare_files

    with _progress(as_json) as on_progress:
        found = compare_files(out_dir=output_dir, on_progress=on_progress, **settings)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
    else:
        print_comparison(found)
        click.echo(f"wrote {output_dir / 'comparison.json'} and {output_dir / 'judgements.jsonl'}")
    if found.missing:
        click.echo(
            f"failed: the budget is reached, {len(found.missing)} pairs are missing; the verdicts"
            " so far are kept, the same command spends as much again and goes on",
            err=True,
        )
        sys.exit(1)


@contextmanager
def _progress(is_silent: bool) -> Iterator[Callable[[int, int], None]]:
    """Shows how many pairs are judged, where someone looks on."""
    if is_silent or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("judging pairs", total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def _name(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


COMMANDS: tuple[click.Command, ...] = (judge,)
