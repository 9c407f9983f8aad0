"""The arguments SWEEP and TRIAL, which mean the same in every command.

A sweep is named by its folder, or by its name in runs/; the default is the latest one. Shell
completion offers the names of sweeps and the ids of trials.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem


class SweepType(click.ParamType):  # type: ignore[type-arg]  # generic from 8.4 on only
    """The name or folder of a sweep; `orchestrator.monitoring.lookup` finds it."""

    name = "sweep"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the sweeps in runs/, or folders if none of them matches."""
        from orchestrator.monitoring.lookup import runs_folder, sweep_folders

        names = [folder.root.name for folder in sweep_folders(runs_folder())]
        found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type="dir")]


class TrialType(click.ParamType):  # type: ignore[type-arg]
    """The id of a trial or a prefix of one."""

    name = "trial"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the trials of the sweep that was given, or of the latest one."""
        from orchestrator.monitoring.lookup import find_sweep
        from trainers.foundation.errors import InputError

        given = ctx.params.get("sweep")
        try:
            ids = find_sweep(given).read_sweep().trial_ids
        except InputError:
            return []
        return [CompletionItem(one) for one in ids if one.startswith(incomplete)]


class ModelType(click.ParamType):  # type: ignore[type-arg]
    """A sweep, a trial or a folder of scores."""

    name = "model"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer sweeps, trials of the latest sweep, or folders."""
        found = [
            item
            for kind in (SweepType(), TrialType())
            for item in kind.shell_complete(ctx, param, incomplete)
            if item.type == "plain"
        ]
        return found or [CompletionItem(incomplete, type="dir")]


SWEEP = SweepType()
sweep_argument = click.argument("sweep", required=False, type=SWEEP)
trial_argument = click.argument("trial", required=False, type=TrialType())


def models_argument(count: int, names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the argument `[SWEEP] NAMES` for `count` models, passed on as their folders."""

    def folders(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> list[Path]:
        if not count <= len(given) <= count + 1:
            from trainers.foundation.counts import format_count

            number = format_count(len(given), "argument")
            raise click.UsageError(f"give [SWEEP] {names}, got {number}")
        from orchestrator.monitoring.lookup import find_scored_folders

        return find_scored_folders(given, count)

    return click.argument(
        "models", nargs=-1, type=ModelType(), metavar=f"[SWEEP] {names}", callback=folders
    )
