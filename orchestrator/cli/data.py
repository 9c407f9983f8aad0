"""`plw data`: look at data before it is trained on, and turn it round."""

import json
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.options import json_option


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
    from orchestrator.cli.data_screen import print_stats
    from orchestrator.cli.single import stats_of
    from orchestrator.data.advice import advise
    from orchestrator.data.advised_spec import write_advised_spec
    from orchestrator.foundation.safe_write import check_new
    from trainers.config import DataConfig
    from trainers.foundation.settings_file import build_config

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


@data.command()
@click.argument("path", required=False)
@click.option("-n", "--number", default=3, type=click.IntRange(min=1), help="Examples to show.")
@click.option("--start", default=0, type=click.IntRange(min=0), help="The first one, from 0.")
@click.option("--ids", "has_ids", is_flag=True, help="A line for each token, with its id.")
@click.option("--full", "is_full", is_flag=True, help="All of long examples.")
@click.option(
    "--plw", type=click.FloatRange(0, 1), help="Prompt loss weight; default: the config's, or 0."
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="A sweep spec or train config, whose model, data and loss settings are used.",
)
@click.option("--model", help="Whose tokenizer; default: the config's or the demo's.")
@click.option("--template", help="chat, alpaca, plain or a Jinja file; default: the config's.")
@click.option("--max-length", type=click.IntRange(min=8), help="Tokens per example.")
@click.option(
    "--completion-turns",
    type=click.Choice(["last", "all"]),
    help="Assistant turns of a chat that are completion.",
)
@click.option("--split", help="Split of a hub data set.")
@click.option("--no-color", "is_plain", is_flag=True, help="No colours; so does NO_COLOR.")
@json_option
def show(
    path: str | None,
    number: int,
    start: int,
    has_ids: bool,
    is_full: bool,
    is_plain: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Print examples of PATH token by token, with the role and loss weight of each.

    PATH is a file, hub name or demo:...; with --config, by default that of the config.
    """
    from orchestrator.cli.screen import console
    from orchestrator.cli.token_screen import print_examples
    from orchestrator.data.shown_data import read_shown

    shown = read_shown(path, number=number, start=start, **options)
    if as_json:
        click.echo(json.dumps(shown.to_json(), indent=2, ensure_ascii=False))
        return
    screen = console(is_plain=is_plain)
    print_examples(shown.views, screen, weighting=shown.weighting, has_ids=has_ids, is_full=is_full)
    screen.print(f"\n{len(shown.views)} of {shown.num_examples} examples", style="dim")


def _print_template(context: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if is_asked and not context.resilient_parsing:
        from orchestrator.data.inversion import DEFAULT_TEMPLATE

        click.echo(DEFAULT_TEMPLATE)
        context.exit()


@data.command()
@click.argument("path")
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="OUT.jsonl",
    help="Where the inverted examples go.",
)
@click.option(
    "--template",
    "template_path",
    type=click.Path(path_type=Path),
    help="Jinja file of the new prompt; it may use completion, instruction, input, prompt, system "
    "and messages.",
)
@click.option(
    "--print-template",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_template,
    help="Print the default template, to start an own one from.",
)
@click.option("--model", help="Report lengths in tokens of this tokenizer, not in characters.")
@click.option("--split", default="train", help="Split of a hub data set.")
@click.option("--force", "is_forced", is_flag=True, help="Replace a file that is there.")
@json_option
def invert(
    path: str,
    out: Path,
    template_path: Path | None,
    model: str | None,
    split: str,
    is_forced: bool,
    as_json: bool,
) -> None:
    """Turn PATH round: the completion becomes the prompt, the instruction the completion.

    What comes out has short completions, as AlpacaDataShort of arXiv 2401.13586, and is read by
    data.path. PATH is a file, hub name or demo:...
    """
    from orchestrator.cli.data_screen import print_inverted
    from orchestrator.data import inversion

    found = inversion.invert(
        path, out, split=split, template_path=template_path, model=model, is_forced=is_forced
    )
    if as_json:
        click.echo(found.model_dump_json(indent=2))
    else:
        print_inverted(found)


COMMANDS: tuple[click.Command, ...] = (data,)
