"""Print data statistics and inversion results."""

from typing import TYPE_CHECKING

import click

from orchestrator.cli.render import console, make_table
from orchestrator.foundation.shell_words import shell_path
from orchestrator.monitoring.status import format_number

if TYPE_CHECKING:
    # Types only: these import torch, which takes seconds.
    from orchestrator.inspection.advice import Advice
    from orchestrator.inspection.inversion import InversionResult
    from trainers.data.length_stats import DataStats, GenerationRatio


def print_stats(path: str, stats: "DataStats", advice: "Advice", *, model: str) -> None:
    """Print tokens by role, what was left out, the generation ratio and the prediction.

    `model` is the model whose tokenizer counted the tokens.
    """
    title = f"{path}, template {stats.template}, tokenizer of {model}"
    table = make_table(title, ("tokens",), ("total", "mean", "median", "95th percentile"))
    counts = {
        "prompt": stats.prompt,
        "  system": stats.system,
        "  user": stats.user,
        "  tool results": stats.tool,
        "  earlier answers": stats.history,
        "  template": stats.template_tokens,
        "  excluded": stats.excluded,
        "completion": stats.completion,
        "  thinking": stats.thinking,
    }
    optional = ("  tool results", "  earlier answers", "  excluded", "  thinking")
    counts = {name: c for name, c in counts.items() if c.total or name not in optional}
    for name, count in counts.items():
        table.add_row(
            name,
            f"{count.total:,}",
            f"{count.mean:.1f}",
            f"{count.median:g}",
            str(count.percentile_95),
        )
    console().print(table)
    for line in stats.loss_lines():
        click.echo(line)
    if stats.history.total and stats.completion_turns == "last":
        click.echo(
            "earlier answers, with their tool calls, count as prompt; to train on them, set "
            "data.completion_turns to all or each"
        )
    _print_ratios(stats)
    print_advice(advice)


def _print_ratios(stats: "DataStats") -> None:
    """Print both averages of R_g and its quantiles, with and without the template."""
    table = make_table(
        "R_g, completion over prompt tokens",
        ("prompt tokens",),
        ("ratio of means", "mean of ratios", "5%", "25%", "median", "75%", "95%", "below 1"),
    )
    table.add_row("with the template", *_ratio_cells(stats.generation_ratio))
    table.add_row("without the template", *_ratio_cells(stats.generation_ratio_without_template))
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
    """Print the prediction, its limits, and the completions' share of the loss by weight."""
    click.echo("prediction of arXiv 2401.13586:")
    for sentence in advice.prediction:
        click.echo(f"  {sentence}")
    click.echo("limits of the prediction:")
    for sentence in advice.limits:
        click.echo(f"  {sentence}")
    shares = ", ".join(
        f"{share.share:.0%} at PLW {share.prompt_loss_weight:g}"
        for share in advice.completion_shares
    )
    if shares:
        click.echo(f"completion share of the total weight (normalization: weights): {shares}")


def print_inversion(inverted: "InversionResult") -> None:
    """Print the lengths before and after the inversion, and the path of the result."""
    for name, lengths in (("before", inverted.before), ("after", inverted.after)):
        click.echo(
            f"{name:7}mean prompt {lengths.mean_prompt:.1f}, mean completion "
            f"{lengths.mean_completion:.1f} {lengths.unit}; completion over prompt "
            f"{lengths.generation_ratio:.3f}"
        )
    if inverted.num_with_history:
        click.echo(
            f"chats with earlier turns: {inverted.num_with_history}; the default template omits "
            "them, a custom template can use `messages`"
        )
    if inverted.num_with_system:
        click.echo(
            f"chats with a system turn: {inverted.num_with_system}; the default template omits it, "
            "a custom template can use `system`"
        )
    if inverted.num_with_weights:
        click.echo(
            f"chats with weights of turns or parts, which are not kept: {inverted.num_with_weights}"
        )
    click.echo(f"wrote {inverted.path}: {inverted.num_examples} examples")
    click.echo(f"next: plw data stats {shell_path(inverted.path)}")
