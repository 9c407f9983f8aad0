"""Define the argument and options that select data and its settings for `plw data` commands."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.options import PATH, set_option


def data_source(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add SOURCE and the options that change its settings; the command gets `settings`.

    An option `plw` of the command sets the prompt loss weight.
    """

    @click.argument("source", required=False)
    @click.option(
        "--config",
        "config_path",
        type=PATH,
        help="A sweep spec or train config with the settings for the data SOURCE.",
    )
    @click.option("--model", help="Model of the tokenizer; default: the spec's, then the demo's.")
    @click.option("--template", help="A value of data.template, such as chat, plain, chatml-tools.")
    @click.option("--max-length", type=click.IntRange(min=8), help="Tokens per example.")
    @click.option(
        "--too-long",
        type=click.Choice(["truncate", "drop", "error"]),
        help="Treatment of longer examples.",
    )
    @click.option(
        "--completion-turns",
        type=click.Choice(["last", "all", "each"]),
        help="Assistant turns of a chat that count as completion.",
    )
    @click.option("--split", help="Split of a hub data set.")
    @set_option
    @wraps(command)
    def with_settings(
        source: str | None,
        config_path: Path | None,
        model: str | None,
        template: str | None,
        max_length: int | None,
        too_long: str | None,
        completion_turns: str | None,
        split: str | None,
        overrides: Sequence[str],
        plw: float | None = None,
        **rest: Any,
    ) -> Any:
        from orchestrator.inspection.data_settings import read_data_settings

        options = {
            "model": {"path": model} if model else None,
            "data.template": template,
            "data.max_length": max_length,
            "data.too_long": too_long,
            "data.completion_turns": completion_turns,
            "data.split": split,
            "loss.prompt_loss_weight": plw,
        }
        settings = read_data_settings(
            source, config_path=config_path, options=options, overrides=overrides
        )
        return command(settings=settings, **rest)

    return with_settings
