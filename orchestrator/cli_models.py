"""`plw eval`: one model, without a sweep."""

from pathlib import Path

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
    )
    if as_json:
        click.echo(card.model_dump_json(indent=2))
        return
    print_scores(card)
    click.echo(f"wrote {output_dir / 'scores.json'} and {output_dir / 'samples.jsonl'}")


COMMANDS: tuple[click.Command, ...] = (evaluate,)
