"""What the commands print for people."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from evals.results.scores import ScoreCard
from orchestrator.analysis.answer import read_findings
from orchestrator.analysis.caveats import overlap_caveats
from orchestrator.analysis.cut_data import cut_data
from orchestrator.analysis.headline import conditions, headline
from orchestrator.cli.doctor import Finding
from orchestrator.record.bases import base_labels
from orchestrator.record.folder import SweepFolder
from orchestrator.report.trials import score_columns
from orchestrator.spec.two_weights import ratio_alone_warning
from orchestrator.statistics.aggregates import is_aggregate, with_aggregates
from orchestrator.watching.status import PIPED_WIDTH, format_duration, format_number
from orchestrator.watching.typed import typed_log, typed_pages, typed_sweep

if TYPE_CHECKING:
    # Types only: these import torch, which takes seconds.
    from orchestrator.plan.sweep_plan import SweepPlan
    from orchestrator.trials.sweep import Outcome

_PLANNED = {
    "pending": "pending",
    "scores": "done, scored anew",
    "done": "done, skipped",
    "stopped": "stopped early, skipped",
}
_VERDICT_STYLE = {"ok": "green", "warning": "yellow", "error": "red"}


def console(*, is_plain: bool = False) -> Console:
    """The terminal, or lines as wide as they are when piped; `is_plain` has no colours."""
    screen = Console(no_color=is_plain or None, highlight=not is_plain)
    return screen if screen.is_terminal else Console(width=PIPED_WIDTH)


def print_plan(plan: "SweepPlan") -> None:
    """The trials, what each will cost, and what the sweep needs."""
    title = f"sweep {plan.name}: {trials_phrase(plan.num_trials)}"
    table = Table(title=title, title_justify="left")
    for heading in ("id", *plan.trials[0].searched, "state"):
        table.add_column(heading)
    for heading in ("steps", "tokens", "training"):
        table.add_column(heading, justify="right")
    for trial in plan.trials:
        table.add_row(
            trial.id,
            *(str(value) for value in trial.searched.values()),
            _PLANNED[trial.state],
            str(trial.steps),
            f"{trial.tokens:,}",
            format_duration(trial.estimated_train_seconds if trial.state == "pending" else None),
        )
    if plan.num_open:
        chosen = f"and {trials_phrase(plan.num_open)} more, chosen from the results of those before"
        table.caption, table.caption_justify = chosen, "left"
    console().print(table)
    total = plan.estimated_train_seconds
    memory = format_number(plan.estimated_memory_gib, ".1f")
    needs = {
        "training in all": f"about {format_duration(total)}, one trial at a time "
        f"({plan.estimate_basis}); start-up and scoring come on top",
        "workers": f"{plan.workers_per_trial} per trial, {plan.cpus_per_worker} CPU cores each",
        "memory per worker": f"about {memory} GiB for weights, gradients and optimizer; "
        "activations come on top",
        **_needs_by_zero_stage(plan),
        **_gpu_needs(plan),
        "disk": f"about {format_number(plan.estimated_disk_gib, '.1f')} GiB in {plan.output_dir}",
    }
    if len(plan.bases) > 1:
        num_scored = sum(base.has_scores for base in plan.bases)
        needs["untuned scores"] = (
            f"of {len(plan.bases)} pairs of model and held-out data, {num_scored} scored before"
        )
    for name, need in needs.items():
        click.echo(f"{name:19}{need}")
    labels = base_labels(plan.bases)
    for base in plan.bases:
        of = f"{labels[base.key]}: " if labels[base.key] else ""
        for warning in (warning for data in base.data for warning in cut_data(data)):
            click.echo(f"warning: {of}{warning}")
    same = ratio_alone_warning(trial.settings for trial in plan.trials)
    if same:
        click.echo(f"warning: {same}.")


def _needs_by_zero_stage(plan: "SweepPlan") -> dict[str, str]:
    if plan.memory_by_zero_stage is None:
        return {}
    stages = [
        f"{stage}: {format_number(gib, '.1f')}" for stage, gib in plan.memory_by_zero_stage.items()
    ]
    return {"by ZeRO stage": f"{', '.join(stages)} GiB"}


def _gpu_needs(plan: "SweepPlan") -> dict[str, str]:
    """GPU hours and what they cost; nothing where no GPU takes part."""
    if not plan.estimated_gpu_hours:
        return {}
    needs = {"GPU hours": f"about {plan.estimated_gpu_hours:.1f} for training"}
    if plan.estimated_cost is not None:
        needs["cost"] = f"about {plan.estimated_cost:.2f} for them"
    return needs


def print_outcome(outcome: "Outcome", *, as_json: bool) -> None:
    """What was found, where the report is, and what to do next."""
    folder = outcome.folder
    findings = read_findings(folder)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "folder": str(folder.root),
                    "report": str(folder.report_html),
                    "num_run": outcome.num_run,
                    "num_skipped": outcome.num_skipped,
                    "num_failed": outcome.num_failed,
                    "num_unfinished": outcome.num_unfinished,
                    "num_stopped": outcome.num_stopped,
                    "num_not_started": outcome.num_not_started,
                    "end_reason": outcome.end_reason,
                    "headline": headline(findings),
                    "conditions": conditions(findings),
                },
                indent=2,
            )
        )
        return
    click.echo()
    if outcome.num_skipped:
        were = "was" if outcome.num_skipped == 1 else "were"
        click.echo(f"{trials_phrase(outcome.num_skipped)} {were} done before and {were} skipped.")
    for line in _failures(folder):
        click.echo(line)
    if outcome.num_stopped:
        click.echo(f"{trials_phrase(outcome.num_stopped)} stopped early for falling behind.")
    if outcome.end_reason is not None:
        left = f"; {trials_phrase(outcome.num_not_started)} did not start"
        click.echo(f"ended: {outcome.end_reason}{left if outcome.num_not_started else ''}")
    if outcome.num_unfinished:
        is_one = outcome.num_unfinished == 1
        are, checkpoints = (
            ("is", "its last checkpoint") if is_one else ("are", "their last checkpoints")
        )
        click.echo(
            f"interrupted: {trials_phrase(outcome.num_unfinished)} {are} not finished; "
            f"the same command goes on from {checkpoints}"
        )
    if not outcome.is_tracked:
        click.echo("MLflow did not take everything; run the sweep again to post what is missing.")
    for line in (headline(findings), *conditions(findings)):
        click.echo(line)
    click.echo(f"report: {folder.report_html}")
    shown = typed_sweep(folder)
    commands = [
        (f"plw report {shown}", "write the report again"),
        (f"plw status {shown}", "the trials at a glance"),
        *typed_pages(folder),
    ]
    width = max(len(command) for command, _ in commands)
    click.echo("next:")
    for command, purpose in commands:
        click.echo(f"  {command.ljust(width)}  {purpose}")


def _failures(folder: SweepFolder) -> Iterator[str]:
    """A line for each reason that trials failed for, with all of them and one log to look at."""
    by_reason: dict[str, list[str]] = {}
    for trial in folder.read_trials():
        if trial.state == "failed":
            reason = trial.error or "no reason recorded"
            by_reason.setdefault(reason, []).append(trial.id)
    for reason, ids in by_reason.items():
        yield f"failed: {', '.join(ids)}: {reason}; see {typed_log(folder, ids[0])}"


def trials_phrase(count: int) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count} trial{'' if count == 1 else 's'}"


def print_scores(card: ScoreCard) -> None:
    """Each measure with its 95% interval, then the means of groups of several."""
    table = Table(title=f"scores of {card.model_path}", title_justify="left")
    for heading in ("measure", "group"):
        table.add_column(heading)
    for heading in ("score", "95% interval", "items"):
        table.add_column(heading, justify="right")
    columns = score_columns([with_aggregates(card, None)])
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
        further = (f"{score.name} {score.value:.3f}" for score in card.secondary)
        click.echo(f"further: {', '.join(further)}")
    for caveat in overlap_caveats({}, {"": [card]}):
        click.echo(f"warning: {caveat}")


def print_findings(findings: list[Finding]) -> None:
    """One line for each thing looked at, and the remedy under what is not fine."""
    for finding in findings:
        click.echo(
            f"{click.style(finding.verdict.ljust(8), _VERDICT_STYLE[finding.verdict])}"
            f"{finding.subject.ljust(12)}{finding.detail}"
        )
        if finding.fix:
            click.echo(f"{'':20}mend it: {finding.fix}")
