"""Print a plan and the outcome of a sweep."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from orchestrator.analysis.headline import conditions, headline
from orchestrator.analysis.sweep_findings import read_findings
from orchestrator.analysis.truncation import truncation_warnings
from orchestrator.cli.render import (
    console,
    format_size,
    format_trial_count,
    make_table,
    print_commands,
)
from orchestrator.monitoring.command_hints import (
    log_location,
    more_seeds_command,
    page_commands,
    resume_command,
    sweep_argument,
)
from orchestrator.monitoring.status import format_duration
from orchestrator.record.baselines import baseline_labels
from orchestrator.record.folder import STOP_REQUESTED, SweepFolder
from orchestrator.spec.two_weights import only_ratio_counts_warning
from trainers.foundation.counts import format_count

if TYPE_CHECKING:
    # Types only: these import torch, which takes seconds.
    from orchestrator.plan.sweep_plan import SweepPlan
    from orchestrator.trials.sweep import SweepOutcome

_STATE_TEXTS = {
    "pending": "pending",
    "scores": "done, to be scored again",
    "done": "done, skipped",
    "stopped": "stopped early, skipped",
}


# The default of checkpoint.every_minutes.
MAX_SECONDS_AT_RISK = 15 * 60


def print_plan(plan: "SweepPlan") -> None:
    """Print the trials of a plan, its cost and resource requirements, and warnings."""
    from orchestrator.plan.sweep_plan import MIN_OWN_RATES

    table = make_table(
        f"sweep {plan.name}: {format_trial_count(plan.num_trials)}",
        ("id", *plan.trials[0].searched, "state"),
        ("steps", "tokens", "training"),
    )
    for trial in plan.trials:
        table.add_row(
            trial.id,
            *(str(value) for value in trial.searched.values()),
            _STATE_TEXTS[trial.state],
            str(trial.steps),
            f"{trial.tokens:,}",
            format_duration(trial.estimated_train_seconds if trial.state == "pending" else None),
        )
    if plan.num_open:
        table.caption = f"and {format_trial_count(plan.num_open)} more, chosen from earlier results"
        table.caption_justify = "left"
    console().print(table)
    for name, need in _needs(plan).items():
        click.echo(f"{name:19}{need}")
    for line in dict.fromkeys(trial.schedule for trial in plan.trials):
        click.echo(f"{'learning rate':19}{line}")
    labels = baseline_labels(plan.bases)
    for line in dict.fromkeys(_data_lines(plan, labels)):
        click.echo(f"{'data':19}{line}")
    for base in plan.bases:
        prefix = f"{labels[base.key]}: " if labels[base.key] else ""
        for warning in (warning for data in base.data for warning in truncation_warnings(data)):
            click.echo(f"warning: {prefix}{warning}")
    ratio_warning = only_ratio_counts_warning(trial.settings for trial in plan.trials)
    if ratio_warning:
        click.echo(f"warning: {ratio_warning}.")
    if plan.has_too_few_own_rates:
        click.echo(
            f"warning: {plan.num_points} points, each with its own learning rate, cannot separate "
            f"the effects of weight and rate; set search.points to {MIN_OWN_RATES} or more, or "
            "search the weight at one rate"
        )
    elif plan.is_too_small:
        click.echo(
            f"warning: {format_trial_count(plan.num_trials)} without repeats cannot show which "
            "weight is best; repeat them with search.seeds, such as [0, 1, 2]"
        )
    lost = plan.most_seconds_at_risk
    if lost is not None and lost > MAX_SECONDS_AT_RISK:
        click.echo(
            f"warning: a lost node costs up to {format_duration(lost)} of a trial; set "
            "checkpoint.every_minutes to 15"
        )


def _data_lines(plan: "SweepPlan", labels: Mapping[str, str]) -> Iterator[str]:
    """Yield the sizes and losses of each data set of the trials, after its baseline's label."""
    from trainers.data.length_stats import DataStats

    # It cannot be searched, so all trials have the same.
    wanted = plan.trials[0].settings["data"]["heldout_examples"]
    for base in plan.bases:
        prefix = f"{labels[base.key]}: " if labels[base.key] else ""
        for data in base.data:
            size, *losses = DataStats.model_validate(data["stats"]).loss_lines()
            for line in (f"training: {size}", _heldout_line(data["num_heldout"], wanted), *losses):
                yield f"{prefix}{line}"


def _heldout_line(num_heldout: int, wanted: int) -> str:
    """Return the number of held-out examples, and why there are fewer than `wanted`."""
    line = f"held out: {format_count(num_heldout, 'example')}"
    if num_heldout == wanted:
        return line
    return (
        f"{line}, not the {wanted:,} of data.heldout_examples: examples with the same prompt are "
        "either all held out or all used for training"
    )


def _about(gib: float | None) -> str:
    return "unknown" if gib is None else f"about {_size(gib)}"


def _size(gib: float) -> str:
    return format_size(round(gib * 2**30))


def _needs(plan: "SweepPlan") -> dict[str, str]:
    """Return the required time, memory, GPUs and disk space as text, by label."""
    needs = {
        "total training": f"about {format_duration(plan.estimated_train_seconds)}, one trial at a "
        f"time ({plan.estimate_basis}), without start-up and scoring",
        "workers": f"{plan.workers_per_trial} per trial, {plan.cpus_per_worker} CPU cores each",
        "memory per worker": f"{_about(plan.estimated_memory_gib)} for weights, gradients and "
        "optimizer, without activations",
    }
    if plan.memory_by_zero_stage is not None:
        by_stage = plan.memory_by_zero_stage.items()
        needs["by ZeRO stage"] = ", ".join(
            f"{stage}: {'-' if gib is None else _size(gib)}" for stage, gib in by_stage
        )
    if plan.estimated_gpu_hours:
        needs["GPU hours"] = f"about {plan.estimated_gpu_hours:.1f} for training"
        if plan.estimated_cost is not None:
            needs["cost"] = f"about {plan.estimated_cost:.2f} for the GPU hours"
    needs["disk"] = f"{_about(plan.estimated_disk_gib)} in {plan.output_dir}"
    if len(plan.bases) > 1:
        num_scored = sum(base.has_scores for base in plan.bases)
        needs["untuned scores"] = (
            f"for {len(plan.bases)} pairs of model and held-out data, {num_scored} scored before"
        )
    return needs


def outcome_json(outcome: "SweepOutcome") -> dict[str, Any]:
    """Return the outcome of a sweep with its headline, for JSON."""
    folder = outcome.folder
    findings = read_findings(folder)
    return {
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
    }


def print_outcome(outcome: "SweepOutcome") -> None:
    """Print the headline of a sweep, the path of its report and the next commands."""
    folder = outcome.folder
    findings = read_findings(folder)
    click.echo()
    for line in (*_outcome_lines(outcome), headline(findings), *conditions(findings)):
        click.echo(line)
    click.echo(f"report: {folder.report_html}")
    name, sweep = sweep_argument(folder), folder.read_sweep()
    is_interrupted = outcome.num_unfinished > 0 or outcome.end_reason == STOP_REQUESTED
    print_commands(
        [
            *([(resume_command(sweep), "continue the sweep")] if is_interrupted else []),
            (f"plw report {name}", "write the report again"),
            (f"plw status {name}", "show the trials"),
            *page_commands(folder),
        ]
    )
    seeds = [run.seed for run in findings.lead.next_runs] if findings.lead is not None else []
    more = more_seeds_command(sweep, seeds)
    if more is not None and not is_interrupted:
        # In a list of its own: the length of this command would move the purposes of the others.
        purpose = f"run the {format_trial_count(len(seeds))} named above"
        print_commands([(more, purpose)], has_heading=False)


def _outcome_lines(outcome: "SweepOutcome") -> Iterator[str]:
    """Yield lines on trials that were skipped, failed, stopped or interrupted."""
    if outcome.num_skipped:
        were = "was" if outcome.num_skipped == 1 else "were"
        yield f"{format_trial_count(outcome.num_skipped)} {were} done before and {were} skipped."
    yield from _failure_lines(outcome.folder)
    if outcome.num_stopped:
        yield f"{format_trial_count(outcome.num_stopped)} stopped early."
    if outcome.end_reason is not None:
        sweep = outcome.folder.read_sweep()
        num_left = outcome.num_not_started + sweep.num_planned - len(sweep.trial_ids)
        rest = f"; {format_trial_count(num_left)} did not start"
        yield f"ended: {outcome.end_reason}{rest if num_left else ''}"
    if outcome.num_unfinished:
        is_one = outcome.num_unfinished == 1
        are, checkpoints = (
            ("is", "its last checkpoint") if is_one else ("are", "their last checkpoints")
        )
        yield (
            f"interrupted: {format_trial_count(outcome.num_unfinished)} {are} not finished; "
            f"run the same command to resume from {checkpoints}"
        )
    if not outcome.is_tracked:
        yield "MLflow did not accept everything; run the sweep again to post the rest."


def _failure_lines(folder: SweepFolder) -> Iterator[str]:
    """Yield one line per failure reason, with its trials and the log of the first; then advice."""
    by_reason: dict[str, list[str]] = {}
    failed = [trial for trial in folder.read_trials() if trial.state == "failed"]
    for trial in failed:
        by_reason.setdefault(trial.error or "no reason recorded", []).append(trial.id)
    for reason, ids in by_reason.items():
        yield f"failed: {', '.join(ids)}: {reason}; see {log_location(folder, ids[0])}"
    if any(trial.failure not in ("divergence", "input") for trial in failed):
        yield "Run the same command to try failed trials again."
