"""What `plw data stats` prints for people."""

from typing import TYPE_CHECKING

import click
from rich.table import Table

from orchestrator.cli.screen import console
from orchestrator.watching.status import format_number

if TYPE_CHECKING:
    # Types only: these import torch, which takes seconds.
    from orchestrator.data.advice import Advice
    from orchestrator.data.inversion import Inverted
    from trainers.data.length_stats import DataStats, GenerationRatio


def print_stats(path: str, stats: "DataStats", advice: "Advice") -> None:
    """Tokens by role, the generation ratio and its spread, and what follows from it."""
    title = (
        f"{path}: {stats.num_examples} examples, template {stats.template}, "
        f"{stats.num_truncated_examples} cut to {stats.max_length} tokens"
    )
    if stats.num_truncated_examples:
        title += f" ({stats.num_truncated_tokens} lost)"
    if stats.num_cut_completions:
        title += f", {stats.num_cut_completions} of them without the end of their completion"
    if stats.num_dropped_examples:
        title += (
            f", {stats.num_dropped_examples} longer ones dropped"
            f" ({stats.num_dropped_tokens} tokens)"
        )
    table = Table(title=title, title_justify="left")
    table.add_column("tokens")
    for heading in ("total", "mean", "median", "95th percentile"):
        table.add_column(heading, justify="right")
    counts = {
        "prompt": stats.prompt,
        "  system": stats.system,
        "  user": stats.user,
        "  template": stats.template_tokens,
        "completion": stats.completion,
    }
    for name, count in counts.items():
        table.add_row(
            name,
            f"{count.total:,}",
            f"{count.mean:.1f}",
            f"{count.median:g}",
            str(count.percentile_95),
        )
    console().print(table)
    _print_ratios(stats)
    print_advice(advice)


def _print_ratios(stats: "DataStats") -> None:
    """Both averages of R_g, and how single examples spread, with the template and without."""
    table = Table(title="R_g, completion over prompt tokens", title_justify="left")
    table.add_column("prompt counted")
    for heading in (
        *("ratio of means", "mean of ratios", "5%", "25%", "median", "75%", "95%", "below 1"),
    ):
        table.add_column(heading, justify="right")
    table.add_row("with the template", *_ratio_cells(stats.generation_ratio))
    table.add_row("without it", *_ratio_cells(stats.generation_ratio_without_template))
    console().print(table)


def _ratio_cells(ratio: "GenerationRatio") -> list[str]:
    cells = [format_number(ratio.of_means, ".3f"), format_number(ratio.mean_of_ratios, ".3f")]
    spread = ratio.spread
    if spread is None:
        return [*cells, *"------"]
    quantiles = (
        *(spread.percentile_5, spread.percentile_25, spread.median),
        *(spread.percentile_75, spread.percentile_95),
    )
    return [*cells, *(f"{value:.3g}" for value in quantiles), f"{spread.share_below_one:.0%}"]


def print_advice(advice: "Advice") -> None:
    """The prediction, its limits, and what the weights to try make of the loss."""
    click.echo("what arXiv 2401.13586 would predict:")
    for sentence in advice.prediction:
        click.echo(f"  {sentence}")
    click.echo("its limits:")
    for sentence in advice.limits:
        click.echo(f"  {sentence}")
    shares = ", ".join(
        f"{share.share:.0%} at PLW {share.prompt_loss_weight:g}"
        for share in advice.completion_shares
    )
    if shares:
        click.echo(f"completions' share of all weight (normalization weights): {shares}")


def print_inverted(inverted: "Inverted") -> None:
    """Where the inverted examples are, and what became of their lengths."""
    for name, lengths in (("before", inverted.before), ("after", inverted.after)):
        click.echo(
            f"{name:7}mean prompt {lengths.mean_prompt:.1f}, mean completion "
            f"{lengths.mean_completion:.1f} {lengths.unit}; completion over prompt "
            f"{lengths.generation_ratio:.3f}"
        )
    if inverted.num_with_history:
        click.echo(
            f"chats with earlier turns: {inverted.num_with_history}; a template shows those by "
            "`messages`, the default one leaves them out"
        )
    if inverted.num_with_system:
        click.echo(
            f"chats with a system turn: {inverted.num_with_system}; a template shows it by "
            "`system`, the default one leaves it out"
        )
    click.echo(f"wrote {inverted.path}: {inverted.num_examples} examples")
    click.echo(f"next: plw data stats {inverted.path}")
