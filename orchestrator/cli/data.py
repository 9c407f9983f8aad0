"""`plw data`: inspect training data, and invert it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.data_options import data_source
from orchestrator.cli.options import PATH, force_option, json_option
from orchestrator.cli.render import print_json
from orchestrator.cli.signals import BAD_INPUT
from orchestrator.foundation.shell_words import shell_path

if TYPE_CHECKING:
    # Types only: these import torch, which takes seconds.
    from orchestrator.inspection.data_settings import DataSettings


@click.group()
def data() -> None:
    """Inspect training data before a sweep."""


@data.command()
@data_source
@click.option(
    "--spec",
    "spec_path",
    type=PATH,
    metavar="OUT.yaml",
    help="Also write a sweep spec for this data and model, with weights around the predicted best.",
)
@force_option
@json_option
def stats(settings: "DataSettings", spec_path: Path | None, overwrite: bool, as_json: bool) -> None:
    """Show counts, tokens by role, R_g and a predicted best PLW.

    SOURCE is a file, hub name or demo:..., or a sweep spec. The prediction is that of arXiv
    2401.13586.
    """
    from orchestrator.cli.data_output import print_stats
    from orchestrator.foundation.safe_write import check_overwrite
    from orchestrator.inspection.advice import advise
    from orchestrator.inspection.dataset_stats import dataset_stats, source_uses
    from orchestrator.inspection.suggested_spec import write_suggested_spec

    if spec_path is not None:
        check_overwrite(spec_path, overwrite=overwrite)
    found = dataset_stats(settings)
    advice = advise(found)
    data_config, model = settings.config.data, settings.config.model.path
    if spec_path is not None:
        write_suggested_spec(
            spec_path, advice, found, data_config, model=model, overwrite=overwrite
        )
    if as_json:
        written = None if spec_path is None else str(spec_path)
        content = {"model": model, **found.to_json(), "advice": advice.model_dump(mode="json")}
        content["spec"] = written
        content["sources"] = [source.model_dump() for source in source_uses(data_config)]
        print_json(content)
        return
    print_stats(data_config.label, found, advice, model=model)
    for source in source_uses(data_config):
        click.echo(
            f"{source.path}: {source.num_used:,} examples, {source.num_uses:,} uses in an epoch"
        )
    if spec_path is None:
        click.echo("to write a spec for this data, add --spec sweep.yaml")
    else:
        click.echo(f"wrote {spec_path}")
        click.echo(f"next: plw plan {shell_path(spec_path)}")


@data.command()
@data_source
@click.option("--plw", type=click.FloatRange(0, 1), help="Prompt loss weight, instead of SOURCE's.")
@click.option("-n", "--number", default=3, type=click.IntRange(min=1), help="Number of examples.")
@click.option("--start", default=0, type=click.IntRange(min=0), help="Index of the first example.")
@click.option("--id", "ids", multiple=True, help="Show the example with this id; can be repeated.")
@click.option("--longest", "is_longest", is_flag=True, help="Show the longest examples.")
@click.option(
    "--random",
    "num_random",
    type=click.IntRange(min=1),
    metavar="N",
    help="Show N random examples.",
)
@click.option("--seed", default=0, help="Seed of --random.")
@click.option("--search", metavar="TEXT", help="Show examples whose rendered text contains TEXT.")
@click.option("--ids", "has_ids", is_flag=True, help="One line per token, with its id.")
@click.option("--full", "is_full", is_flag=True, help="Show long examples completely.")
@click.option("--no-color", "is_plain", is_flag=True, help="No colours; same as NO_COLOR.")
@click.option(
    "--html", "page", type=PATH, metavar="FILE", help="Write the examples to a self-contained page."
)
@force_option
@json_option
def show(
    settings: "DataSettings",
    has_ids: bool,
    is_full: bool,
    is_plain: bool,
    page: Path | None,
    overwrite: bool,
    as_json: bool,
    **selection: Any,
) -> None:
    """Show examples token by token, with their roles and loss weights.

    SOURCE is a file, hub name or demo:..., or a sweep spec, whose model, data and loss settings are
    used.
    """
    from orchestrator.cli.render import console
    from orchestrator.cli.token_output import print_examples
    from orchestrator.foundation.safe_write import check_overwrite
    from orchestrator.inspection.example_selection import Selection, select_examples
    from orchestrator.inspection.token_page import write_token_page

    if sum(bool(selection[key]) for key in ("ids", "is_longest", "num_random", "search")) > 1:
        raise click.UsageError("give only one of --id, --longest, --random and --search")
    if page is not None:
        check_overwrite(page, overwrite=overwrite)
    shown = select_examples(settings, Selection(**selection))
    if page is not None:
        write_token_page(page, shown, overwrite=overwrite)
    if as_json:
        print_json(shown.to_json(), ensure_ascii=False)
        return
    count = f"{len(shown.views)} of {shown.num_examples} examples"
    if page is not None:
        click.echo(f"wrote {page}: {count}")
        return
    screen = console(is_plain=is_plain)
    weighting = settings.weighting
    print_examples(shown.views, screen, weighting=weighting, has_ids=has_ids, is_full=is_full)
    screen.print(f"\n{count}", style="dim")


@data.command()
@data_source
@click.option(
    "--random",
    "num_random",
    type=click.IntRange(min=1),
    metavar="N",
    help="Check N random examples.",
)
@click.option("--seed", default=0, help="Seed of --random.")
@json_option
def check(settings: "DataSettings", num_random: int | None, seed: int, as_json: bool) -> None:
    """Compare the labels of SOURCE with masks of transformers and TRL.

    Transformers has a mask if the chat template marks its answers with {% generation %}; TRL is
    used if it is installed. Exits with 1 if a difference is unexplained, and with 2 if nothing can
    be compared. SOURCE is a file, hub name or demo:..., or a sweep spec.
    """
    from orchestrator.cli.mask_output import print_check
    from orchestrator.inspection.mask_check import check_masks

    found = check_masks(settings, num_random=num_random, seed=seed)
    if as_json:
        print_json(found)
    else:
        print_check(found)
    if not found.num_compared:
        sys.exit(BAD_INPUT)
    sys.exit(1 if found.num_unexplained else 0)


def _print_template(context: click.Context, _: click.Parameter, is_given: bool) -> None:
    if is_given and not context.resilient_parsing:
        from orchestrator.inspection.inversion import DEFAULT_TEMPLATE

        click.echo(DEFAULT_TEMPLATE)
        context.exit()


@data.command()
@click.argument("path")
@click.option(
    "-o",
    "--output",
    "out",
    type=PATH,
    required=True,
    metavar="OUT.jsonl",
    help="Output file of the inverted examples.",
)
@click.option(
    "--template",
    "template_path",
    type=PATH,
    help="Jinja file of the new prompt; it can use completion, instruction, input, prompt, system "
    "and messages.",
)
@click.option(
    "--print-template",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_template,
    help="Print the default template as a starting point.",
)
@click.option(
    "--model", help="Report lengths in tokens of this model's tokenizer, not in characters."
)
@click.option("--split", default="train", help="Split of a hub data set.")
@force_option
@json_option
def invert(
    path: str,
    out: Path,
    template_path: Path | None,
    model: str | None,
    split: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Swap prompt and completion, for data with short completions.

    The completion becomes the prompt, the instruction the completion. The result has short
    completions, as AlpacaDataShort of arXiv 2401.13586, and can be used as data.path. PATH is a
    file, hub name or demo:...
    """
    from orchestrator.cli.data_output import print_inversion
    from orchestrator.inspection.inversion import invert_data

    found = invert_data(
        path, out, split=split, template_path=template_path, model=model, overwrite=overwrite
    )
    if as_json:
        print_json(found)
    else:
        print_inversion(found)
