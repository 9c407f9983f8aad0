"""Build a report's tables and sentences: verdicts, next trials, Pareto front, means and cost."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.analysis.findings import Cost, Estimate, Findings, Panel, Point, Series
from orchestrator.report.rendering import MAX_SETTINGS_SHOWN
from orchestrator.statistics.conclusions import Conclusions
from orchestrator.statistics.conclusions_markdown import (
    LEGEND,
    front_place,
    gain_text,
    prospect_text,
    run_text,
    verdict_title,
    weights_and_seeds,
)
from orchestrator.statistics.messages import (
    assumption_text,
    format_number,
    format_p_value,
    group_name,
)
from orchestrator.statistics.verdict import Verdict
from trainers.foundation.counts import format_count


def verdict_context(findings: Findings) -> dict[str, Any]:
    """Return the template variables of verdicts, next trials, means and Pareto front."""
    panels = findings.of_kind("answer")
    verdicts = verdict_rows(findings)
    basis, counts = shared_basis(verdicts)
    return {
        "verdicts": verdicts,
        "shared_basis": basis,
        "trial_counts": counts,
        "legend": LEGEND,
        "follow_up_reason": _follow_up_reason(findings),
        "next_runs": _follow_up_lines(findings),
        "prospect": _prospect_sentence(findings),
        "means_note": _means_note(panels),
        "group_table": panel_table(panels, MAX_SETTINGS_SHOWN),
        "front": _front_rows(findings),
    }


def verdict_rows(findings: Findings) -> list[dict[str, Any]]:
    """Return a row for each verdict: overall and groups, cells, then the held-out loss.

    The result is empty if PLW was constant. A condition that all rows share is left out, because
    the headline states it.
    """
    if not findings.is_about_plw:
        return []
    panels = {panel.id: panel for panel in findings.of_kind("answer")}
    answers = [
        conclusions for conclusions in (findings.scores, findings.losses) if conclusions is not None
    ]
    rows = [
        _verdict_row(verdict, conclusions, panels.get(verdict.group))
        for conclusions in answers
        for verdict in conclusions.verdicts
    ]
    is_shared = {row["condition"] for row in rows} - {""} == {row["condition"] for row in rows[:1]}
    # The headline already states the first row's condition.
    return [
        row | {"condition": ""} if is_shared or index == 0 else row
        for index, row in enumerate(rows)
    ]


def shared_basis(rows: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """Return a sentence on the data that all verdicts share, and a column with the rest.

    The sentence is empty if verdicts differ in weights or seeds; the column then contains all data
    of each verdict. The column is empty if all verdicts have the same data.
    """
    found = {row["basis"] for row in rows}
    counts = {row["trials"] for row in rows}
    if len(rows) < 2 or len(found) > 1:
        return "", [f"{row['trials']} ({row['basis']})" for row in rows]
    [basis] = found
    if len(counts) > 1:
        return f"All verdicts use {basis}.", [row["trials"] for row in rows]
    [count] = counts
    return f"All verdicts use {format_count(int(count), 'trial')} ({basis}).", []


def verdict_grid(
    rows: Sequence[Mapping[str, Any]], counts: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of the table of verdicts.

    The column of the untuned model is left out if it would be empty.

    Args:
        counts: the column returned by `shared_basis`.
    """
    has_untuned = any(row["untuned"] != "-" for row in rows)
    columns = ["Scores", "Verdict", "Gain (95%)", "p", *(["Trials"] if counts else [])]
    cells = [
        [
            f"{row['scores']} ({', '.join(filter(None, [row['benchmark'], row['unit']]))})",
            f"{row['verdict']} ({row['condition']})" if row["condition"] else row["verdict"],
            row["gain"],
            row["p_value"],
            *counts[index : index + 1],
            *([row["untuned"]] if has_untuned else []),
        ]
        for index, row in enumerate(rows)
    ]
    return [*columns, *(["Untuned model"] if has_untuned else [])], cells


def _verdict_row(verdict: Verdict, conclusions: Conclusions, panel: Panel | None) -> dict[str, Any]:
    untuned = panel.untuned if panel is not None and verdict.cell is None else None
    return {
        "scores": verdict_title(verdict),
        "verdict": verdict.text,
        "condition": assumption_text(verdict),
        "claims": verdict.claims_effect and verdict.kind != "cannot say",
        "gain": gain_text(verdict, conclusions.unit),
        "benchmark": panel.benchmark if panel is not None else None,
        "unit": conclusions.unit,
        "p_value": format_p_value(verdict.adjusted_p_value),
        "trials": str(verdict.num_trials),
        "basis": weights_and_seeds(verdict),
        "untuned": panel.describe(untuned) if panel is not None and untuned is not None else "-",
    }


def _follow_up_lines(findings: Findings) -> list[str]:
    """Return the trials to run next after an inconclusive verdict, once all have finished."""
    if findings.lead is None or not findings.is_about_plw or findings.trials.unfinished:
        return []
    return [run_text(run) for run in findings.lead.next_runs]


def _follow_up_reason(findings: Findings) -> str:
    """Return a sentence with the reason for the next trials; empty if there are none."""
    design = findings.lead.follow_up if findings.lead is not None else None
    if design is None or not _follow_up_lines(findings):
        return ""
    return f"Reason: {design.reason}."


def _prospect_sentence(findings: Findings) -> str:
    """Return a sentence on the expected result of the next trials; empty if unknown."""
    design = findings.lead.follow_up if findings.lead is not None else None
    return prospect_text(design) if design is not None and _follow_up_lines(findings) else ""


def _front_rows(findings: Findings) -> dict[str, Any] | None:
    """Return the Pareto front over the groups as a table; None if there is no front."""
    conclusions = findings.lead
    if conclusions is None or not conclusions.front:
        return None
    front = conclusions.front
    groups = list(front[0].points)
    digits = _decimals(
        [value for point in front for value in point.points.values()], conclusions.unit
    )
    return {
        "reference": f"{front[0].plw:g}",
        "groups": [group_name(group) for group in groups],
        "rows": [
            [
                f"{point.plw:g}",
                *(f"{point.points[group]:+.{digits}f}" for group in groups),
                front_place(point),
            ]
            for point in front
        ],
    }


def _decimals(differences: Sequence[float], unit: str) -> int:
    """Return the number of decimals to show.

    It is 1 for points. For losses, the largest difference gets 3 significant digits.
    """
    largest = max(abs(each) for each in differences)
    if unit == "points" or largest == 0:
        return 1
    return max(0, 2 - math.floor(math.log10(largest)))


def regulariser_rows(findings: Findings) -> list[list[str]]:
    """Return a row for each regulariser setting, with its difference from no regulariser."""
    panel = findings.panels[0] if findings.panels else None
    if panel is None:
        return []
    return [
        [
            f"{one.label} ({one.base})" if one.base else one.label,
            f"{one.prompt_loss_weight:g}",
            str(one.num_seeds),
            _cell(panel, one.estimate),
            difference_text(one.difference, one.difference_low, one.difference_high, panel.unit),
        ]
        for one in findings.regularisers
    ]


def difference_text(value: float | None, low: float | None, high: float | None, unit: str) -> str:
    if value is None:
        return "-"
    text = format_number(value, unit, signed=True)
    if low is None or high is None:
        return f"{text}, no interval"
    ends = (format_number(end, unit, signed=True) for end in (low, high))
    return f"{text} ({' to '.join(ends)})"


def _means_note(panels: Sequence[Panel]) -> str:
    """Return one or two sentences on the computation of the points' values and intervals."""
    if any(panel.is_within_seeds for panel in panels):
        return (
            "Each seed's common effect on all weights is subtracted, because verdicts compare "
            "weights within seeds; intervals (95%) are within seeds."
        )
    kinds = {point.interval for panel in panels for point in panel.points} - {None}
    over = {"seeds": "over seeds", "items": "over items"}
    named = " or, with one seed, ".join(over[kind] for kind in ("seeds", "items") if kind in kinds)
    return f"Intervals (95%) are {named}." if named else ""


def panel_table(panels: Sequence[Panel], most: int) -> dict[str, Any] | None:
    """Return a row for each setting and a column for each series; None if there are no points."""
    columns = [(panel, series) for panel in panels for series in panel.series if series.points]
    # The series of a panel are either cells (separate rows) or measures (separate columns).
    settings: dict[tuple[str, float, str], dict[str, str]] = {}
    for panel, series in columns:
        for point in series.points:
            cells = settings.setdefault(_key(panel, series, point), {})
            cells[_column(panel, series)] = _cell(panel, point)
    if not settings:
        return None
    names = list(dict.fromkeys(_column(panel, series) for panel, series in columns))
    rows = [
        [
            f"{plw:g}",
            ", ".join(filter(None, [label, other])),
            *(cells.get(name, "-") for name in names),
        ]
        for (label, plw, other), cells in sorted(settings.items(), key=lambda item: item[0])
    ]
    has_other = any(row[1] for row in rows)
    return {
        "columns": ["PLW", *(["Setting"] if has_other else []), *names],
        "rows": [[row[0], *([row[1]] if has_other else []), *row[2:]] for row in rows[:most]],
        "num_left_out": max(0, len(rows) - most),
    }


def _key(panel: Panel, series: Series, point: Point) -> tuple[str, float, str]:
    cell = series.cell
    label = ", ".join(part for part in cell[:2] if part) if cell is not None else ""
    return label, point.prompt_loss_weight, point.other


def _column(panel: Panel, series: Series) -> str:
    unit = f" ({panel.unit}{', from cells mean' if panel.is_relative else ''})"
    source = series.label.partition(",")[0] if panel.kind == "mechanism" else ""
    source = f", {source}" if source.endswith("prompts") else ""
    return f"{panel.title}{source}{unit}"


def _cell(panel: Panel, estimate: Estimate) -> str:
    value = panel.format(estimate.value)
    if estimate.ci_low is None or estimate.ci_high is None:
        return value
    return f"{value} ({panel.format(estimate.ci_low)} to {panel.format(estimate.ci_high)})"


def cost_lines(cost: Cost) -> list[str]:
    """Return sentences on the cost of the sweep, or on the information that is missing."""
    if not cost.held_hours and not cost.scorer_hours:
        return ["The trials' records do not contain the time for which they held their workers."]
    lines = [f"Trials held their workers for {_hours(cost.held_hours)}, over all attempts."]
    if cost.scorer_hours:
        lines.append(f"Separate scorers ran for {_hours(cost.scorer_hours)}.")
    if cost.gpu_hours is None:
        lines.append(
            "GPU-hours are unknown; set resources.gpus_per_worker or "
            "resources.price_per_gpu_hour in the spec."
        )
    elif cost.gpu_hours:
        lines.append(f"That is {cost.gpu_hours:.2f} GPU-hours.")
    else:
        lines.append("No GPUs were used.")
    if cost.money is not None:
        lines.append(f"Cost: {cost.money:.2f}, at {cost.price_per_gpu_hour:g} per GPU-hour.")
    return lines


def _hours(hours: float) -> str:
    return f"{hours:.2f} h" if hours >= 1 else f"{hours * 60:.1f} min"
