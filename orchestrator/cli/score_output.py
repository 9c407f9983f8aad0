"""Print the scores of one model."""

import click

from evals.results.scores import ScoreCard
from orchestrator.analysis.caveats import overlap_caveats
from orchestrator.cli.render import console, make_table
from orchestrator.monitoring.status import format_number
from orchestrator.report.trial_table import score_columns
from orchestrator.statistics.aggregates import add_aggregates, is_aggregate

_MAX_FURTHER = 20


def print_scores(card: ScoreCard) -> None:
    """Print each measure with its 95% interval, then the means of groups with several measures."""
    table = make_table(
        f"scores of {card.model_path}", ("measure", "group"), ("score", "95% interval", "items")
    )
    columns = score_columns([add_aggregates(card, None)])
    for score in (*card.scores, *filter(is_aggregate, columns.values())):
        low, high = format_number(score.ci_low, ".3f"), format_number(score.ci_high, ".3f")
        table.add_row(
            score.name,
            score.group or "-",
            f"{score.value:.3f}",
            f"{low} to {high}",
            str(score.num_items),
        )
    console().print(table)
    if card.secondary:
        further = [f"{score.name} {score.value:.3f}" for score in card.secondary[:_MAX_FURTHER]]
        if (num_left_out := len(card.secondary) - _MAX_FURTHER) > 0:
            further.append(f"and {num_left_out} more in scores.json")
        click.echo(f"further: {', '.join(further)}")
    for caveat in overlap_caveats({}, {"": [card]}):
        click.echo(f"warning: {caveat}")
