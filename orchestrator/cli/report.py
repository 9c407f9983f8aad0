"""`plw report`: write the report of a sweep, or analyse a table of scores."""

from pathlib import Path

import click

from orchestrator.cli.on_cluster import run_on_cluster
from orchestrator.cli.options import PATH, json_option
from orchestrator.cli.render import print_json
from orchestrator.cli.sweep_argument import sweep_argument


@run_on_cluster
@click.command()
@sweep_argument
@click.option(
    "--scores",
    "scores_path",
    type=PATH,
    help="A CSV file of scores from any source (columns: benchmark, plw or w_p, score; optional: "
    "group, seed, trial, model, data_set, condition, standard_error, num_items, learning_rate), "
    "instead of SWEEP.",
)
@click.option(
    "--lower-is-better",
    is_flag=True,
    help="With --scores: the scores are losses or errors on any scale, not shares in [0, 1].",
)
@click.option(
    "--unit",
    metavar="TEXT",
    help="With --lower-is-better: the unit of the losses, such as `nats per token`.",
)
@click.option(
    "--margin",
    type=click.FloatRange(min=0, min_open=True),
    help="With --scores: differences up to this many points count as no effect (default: 1); with "
    "--lower-is-better in the unit of the losses (default: 1% of their median).",
)
@click.option("-o", "--output", type=PATH, help="With --scores: write Markdown to this file.")
@click.option(
    "--html", type=PATH, help="With --scores: write a self-contained page with plots to this file."
)
@json_option
def report(
    sweep: str | None,
    scores_path: Path | None,
    lower_is_better: bool,
    unit: str | None,
    margin: float | None,
    output: Path | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Write the report of SWEEP, or analyse a table of scores.

    SWEEP is a name in runs/ or a folder; default: the latest.
    """
    if sweep is not None and scores_path is not None:
        raise click.UsageError("give either SWEEP or --scores FILE.csv")
    if scores_path is not None:
        _check_unit(unit, lower_is_better=lower_is_better)
        from orchestrator.cli.report_scores import ScoresRequest, report_scores

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
    scores_options = {"--lower-is-better": lower_is_better, "--unit": unit, "--margin": margin,
                      "--output": output, "--html": html}  # fmt: skip
    given = [name for name, value in scores_options.items() if value]
    if given:
        raise click.UsageError(f"{', '.join(given)}: only with --scores FILE.csv")
    from orchestrator.monitoring.lookup import open_sweep
    from orchestrator.report.pages import report_json, write_report

    opened = open_sweep(sweep)
    if as_json:
        print_json(report_json(opened))
        return
    write_report(opened)
    click.echo(f"wrote {opened.report_md} and {opened.report_html}")


def _check_unit(unit: str | None, *, lower_is_better: bool) -> None:
    if unit is None:
        return
    if not lower_is_better:
        raise click.UsageError("--unit: only with --lower-is-better; shares are in points")
    if not unit.strip() or unit == "points":
        raise click.UsageError("--unit: must name the unit of the losses; points are for shares")
