"""`plw data`: look at data before it is trained on, and turn it round."""

import json
from pathlib import Path
from typing import Any

import click

from orchestrator.cli_options import json_option


@click.group()
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
@click.option(
    "--spec",
    "spec_path",
    type=click.Path(path_type=Path),
    metavar="OUT.yaml",
    help="Also write a sweep spec for this data and model, around what is predicted.",
)
@click.option("--force", "is_forced", is_flag=True, help="Replace a spec that is there.")
@json_option
def stats(
    path: str,
    model: str,
    spec_path: Path | None,
    is_forced: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Counts, tokens by role and the generation ratio of PATH (a file, hub name or demo:...).

    And what arXiv 2401.13586 would predict of the best PLW for such data.
    """
    from orchestrator.advice import advise
    from orchestrator.advised_spec import write_advised_spec
    from orchestrator.data_screen import print_stats
    from orchestrator.new_file import check_new
    from orchestrator.single import stats_of
    from trainers.config import DataConfig
    from trainers.config_file import build_config

    config = build_config(DataConfig, {"path": path, **settings}, source=Path("plw data stats"))
    if spec_path is not None:
        check_new(spec_path, is_forced=is_forced)
    found = stats_of(config, model=model)
    advice = advise(found)
    if spec_path is not None:
        write_advised_spec(spec_path, advice, found, config, model=model, is_forced=is_forced)
    if as_json:
        written = None if spec_path is None else str(spec_path)
        content = {**found.to_json(), "advice": advice.model_dump(mode="json"), "spec": written}
        click.echo(json.dumps(content, indent=2))
        return
    print_stats(path, found, advice)
    if spec_path is None:
        click.echo("a spec to try: the same command with --spec sweep.yaml")
    else:
        click.echo(f"wrote {spec_path}")
        click.echo(f"next: plw plan {spec_path}")


COMMANDS: tuple[click.Command, ...] = (data,)
