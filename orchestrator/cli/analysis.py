"""`plw report` and `plw power`: what scores say, and how many trials it takes to say it."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from orchestrator.cli.options import json_option
from orchestrator.cli.submit import on_cluster


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--scores",
    "scores_path",
    type=click.Path(path_type=Path),
    help="A CSV file of scores from anywhere (columns: benchmark, plw or w_p, score; also group, "
    "seed, trial, model, data_set, condition, standard_error, num_items, learning_rate), instead "
    "of FOLDER.",
)
@click.option(
    "--lower-is-better",
    is_flag=True,
    help="With --scores: they are losses or errors on any scale, not shares in [0, 1].",
)
@click.option(
    "--unit",
    metavar="TEXT",
    help="With --lower-is-better: what losses are measured in, such as `nats per token`.",
)
@click.option(
    "--margin",
    type=click.FloatRange(min=0, min_open=True),
    help="With --scores: points that are no effect worth having (default: 1); with "
    "--lower-is-better in the unit of the losses (default: 1% of their median).",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="With --scores: write Markdown here."
)
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    help="With --scores: write a self-contained page with plots here.",
)
@json_option
def report(
    folder: Path | None,
    scores_path: Path | None,
    lower_is_better: bool,
    unit: str | None,
    margin: float | None,
    output: Path | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Write the report of the sweep in FOLDER, or of --scores: which PLW, and how sure."""
    if (folder is None) == (scores_path is None):
        raise click.UsageError("give either the FOLDER of a sweep or --scores FILE.csv")
    if scores_path is not None:
        _check_unit(unit, lower_is_better=lower_is_better)
        from orchestrator.cli.scores import ScoresRequest, report_scores

        request = ScoresRequest(
            path=scores_path,
            lower_is_better=lower_is_better,
            unit=unit,
            margin=margin,
            markdown=output,
            html=html,
            as_json=as_json,
        )
        report_scores(request)
        return
    of_scores = {"--lower-is-better": lower_is_better, "--unit": unit, "--margin": margin,
                 "--output": output, "--html": html}  # fmt: skip
    given = [name for name, value in of_scores.items() if value]
    if given:
        raise click.UsageError(f"{', '.join(given)}: only with --scores FILE.csv")
    assert folder is not None
    from orchestrator.report.pages import report_json, write_report
    from orchestrator.watching.lookup import open_sweep

    opened = open_sweep(folder)
    if as_json:
        click.echo(json.dumps(report_json(opened), indent=2))
        return
    write_report(opened)
    click.echo(f"wrote {opened.report_md} and {opened.report_html}")


def _check_unit(unit: str | None, *, lower_is_better: bool) -> None:
    if unit is None:
        return
    if not lower_is_better:
        raise click.UsageError("--unit: only with --lower-is-better; shares are in points")
    if not unit.strip() or unit == "points":
        raise click.UsageError("--unit: name what losses are in; `points` are those of shares")


@click.command()
@click.option(
    "--effect",
    type=float,
    required=True,
    help="Points between the best and the worst weight that are to be seen.",
)
@click.option(
    "--trial-sd",
    type=float,
    required=True,
    help="Standard deviation of a score over seeds at one weight, in points, without what a seed "
    "does to all weights alike.",
)
@click.option(
    "--item-sd",
    type=float,
    default=0.0,
    show_default=True,
    help="The same over draws of items, as far as trials are scored on different ones.",
)
@click.option(
    "--plws",
    default="0,0.01,0.05,0.1,0.25,1",
    show_default=True,
    metavar="W,W,...",
    help="Weights to try.",
)
@click.option("--best-plw", type=float, help="The assumed optimum; default: the published 0.242.")
@click.option(
    "--seeds", type=click.IntRange(min=1), help="Of each weight; default: as many as needed."
)
@click.option(
    "--power",
    "target",
    type=float,
    default=0.8,
    show_default=True,
    help="Share of studies that should name a best weight.",
)
@click.option(
    "--claims",
    "num_claims",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Verdicts that share the error level: groups, and the overall one.",
)
@click.option(
    "--studies",
    "num_studies",
    type=click.IntRange(min=10),
    default=400,
    show_default=True,
    help="Studies to simulate for each number of seeds.",
)
@json_option
def power(
    effect: float,
    trial_sd: float,
    item_sd: float,
    plws: str,
    best_plw: float | None,
    seeds: int | None,
    target: float,
    num_claims: int,
    num_studies: int,
    as_json: bool,
) -> None:
    """How many seeds it takes to see an effect of PLW and to name a weight, by simulation."""
    from orchestrator.statistics.power import power_of, seeds_needed

    weights = _weights(plws)
    given = {"effect": effect, "trial_sd": trial_sd, "item_sd": item_sd, "best_plw": best_plw}
    counts = {"num_claims": num_claims, "num_studies": num_studies}
    if seeds is None:
        found = seeds_needed(plws=weights, target=target, **counts, **given)  # type: ignore[arg-type]
    else:
        found = power_of(plws=weights, seeds=seeds, **counts, **given)  # type: ignore[arg-type]
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    click.echo(
        f"{found.seeds} seed{'' if found.seeds == 1 else 's'} of {len(weights)} weights, "
        f"{found.num_trials} trials; of {found.num_studies} simulated studies with an effect of "
        f"{effect:g} points"
    )
    click.echo(f"  {found.power:.0%} find the effect")
    click.echo(
        f"  {found.names:.0%} name a best weight, typically as {found.plw_low:.2g} to "
        f"{found.plw_high:.2g}"
    )


def _weights(text: str) -> list[float]:
    from trainers.foundation.errors import InputError, Problem

    try:
        return sorted({float(part) for part in text.split(",") if part.strip()})
    except ValueError:
        problem = Problem(
            message=f"weights must be numbers with commas between, got {text!r}",
            where="--plws",
            fix="write them such as 0,0.01,0.1,1",
        )
        raise InputError(problem) from None


COMMANDS: tuple[click.Command, ...] = (on_cluster(report), power)
