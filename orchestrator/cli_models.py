"""`plw eval` and `plw data`: one model or one data set, without a sweep."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from orchestrator.cli_options import json_option


@click.command("eval")
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
@json_option
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
        on_kept=_say_kept,
    )
    if as_json:
        click.echo(card.model_dump_json(indent=2))
        return
    print_scores(card)
    click.echo(f"wrote {output_dir / 'scores.json'} and {output_dir / 'samples.jsonl'}")


def _say_kept(measures: Sequence[str]) -> None:
    click.echo(f"kept from an earlier run: {', '.join(measures)}", err=True)


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
@json_option
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


COMMANDS: tuple[click.Command, ...] = (evaluate, data)
