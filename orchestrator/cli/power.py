"""`plw power`: simulate how many seeds a sweep needs."""

import click

from orchestrator.cli.options import json_option
from orchestrator.cli.render import print_json


@click.command()
@click.option(
    "--effect",
    type=float,
    required=True,
    help="Effect to detect: points between the best and the worst weight.",
)
@click.option(
    "--trial-sd",
    type=float,
    required=True,
    help="Standard deviation of a score over seeds at one weight, in points, without the effect of "
    "a seed that is common to all weights.",
)
@click.option(
    "--item-sd",
    type=float,
    default=0.0,
    help="Standard deviation of a score over draws of items, if trials have different items.",
)
@click.option(
    "--plws",
    default="0,0.01,0.05,0.1,0.25,1",
    metavar="W,W,...",
    help="Weights of the sweep.",
)
@click.option("--best-plw", type=float, help="True optimum; default: the published 0.242.")
@click.option(
    "--seeds", type=click.IntRange(min=1), help="Seeds per weight; default: as many as needed."
)
@click.option(
    "--power",
    "target",
    type=float,
    default=0.8,
    help="Share of studies that should name a best weight.",
)
@click.option(
    "--claims",
    "num_claims",
    type=click.IntRange(min=1),
    default=1,
    help="Number of verdicts that share the error level: one per group, and the overall one.",
)
@click.option(
    "--studies",
    "num_studies",
    type=click.IntRange(min=10),
    default=400,
    help="Studies to simulate per number of seeds.",
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
    """Simulate how many seeds a sweep needs to detect an effect of PLW."""
    from orchestrator.statistics.power import required_seeds, simulate_power

    weights = _parse_weights(plws)
    noise = {"effect": effect, "trial_sd": trial_sd, "item_sd": item_sd, "best_plw": best_plw}
    counts = {"num_claims": num_claims, "num_studies": num_studies}
    if seeds is None:
        found = required_seeds(plws=weights, target=target, **counts, **noise)  # type: ignore[arg-type]
    else:
        found = simulate_power(plws=weights, seeds=seeds, **counts, **noise)  # type: ignore[arg-type]
    if as_json:
        print_json(found)
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


def _parse_weights(text: str) -> list[float]:
    from trainers.foundation.errors import InputError, Problem

    try:
        return sorted({float(part) for part in text.split(",") if part.strip()})
    except ValueError:
        problem = Problem(
            message=f"weights must be numbers separated by commas, got {text!r}",
            where="--plws",
            fix="write for example 0,0.01,0.1,1",
        )
        raise InputError(problem) from None
