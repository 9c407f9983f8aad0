"""What the report says of the answer, as rows and lines: verdicts, front, mechanism, cost."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.analysis.findings import Cost, Estimate, Findings, Panel, Point, Series
from orchestrator.statistics.conclusions import Answer
from orchestrator.statistics.conclusions_markdown import (
    front_place,
    gain_text,
    prospect_text,
    verdict_title,
)
from orchestrator.statistics.messages import condition_text
from orchestrator.statistics.verdict import Verdict

SMALL_P = 0.001


def verdict_rows(findings: Findings) -> list[dict[str, Any]]:
    """A row for each verdict: overall and groups, cells, then the held-out loss.

    Empty where PLW was the same in all trials, of which there is nothing to judge. A condition is
    left out where it is that of all rows, since it is given with the headline.
    """
    if not findings.is_about_plw:
        return []
    panels = {panel.id: panel for panel in findings.of_kind("answer")}
    answers = [answer for answer in (findings.scores, findings.losses) if answer is not None]
    rows = [
        _verdict_row(verdict, answer, panels.get(verdict.group))
        for answer in answers
        for verdict in answer.verdicts
    ]
    is_shared = {row["condition"] for row in rows} - {""} == {row["condition"] for row in rows[:1]}
    # That of the first row is given with the headline.
    return [
        row | {"condition": ""} if is_shared or index == 0 else row
        for index, row in enumerate(rows)
    ]


def shared_basis(rows: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """What all of several verdicts rest on, in a sentence, and the cells of a column for the rest.

    The sentence is empty where the verdicts differ in weights and seeds; the column where they have
    the number of trials in common as well.
    """
    found = {row["basis"] for row in rows}
    counts = {row["trials"] for row in rows}
    if len(rows) < 2 or len(found) > 1:
        return "", [f"{row['trials']} ({row['basis']})" for row in rows]
    [basis] = found
    if len(counts) > 1:
        return f"All verdicts are on {basis}.", [row["trials"] for row in rows]
    [count] = counts
    return f"All verdicts are from {count} trial{'' if count == '1' else 's'}: {basis}.", []


def verdict_grid(
    rows: Sequence[Mapping[str, Any]], counts: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a plain table of verdicts; `counts` are those of `shared_basis`.

    The untuned model's column is left out where it would be empty.
    """
    has_untuned = any(row["untuned"] != "-" for row in rows)
    columns = ["Scores", "Verdict", "Gain (95%)", "p", *(["Trials"] if counts else [])]
    cells = [
        [
            f"{row['scores']} ({row['unit']})",
            f"{row['verdict']} ({row['condition']})" if row["condition"] else row["verdict"],
            row["gain"],
            row["p_value"],
            *counts[index : index + 1],
            *([row["untuned"]] if has_untuned else []),
        ]
        for index, row in enumerate(rows)
    ]
    return [*columns, *(["Untuned model"] if has_untuned else [])], cells


def _verdict_row(verdict: Verdict, answer: Answer, panel: Panel | None) -> dict[str, Any]:
    untuned = panel.untuned if panel is not None and verdict.cell is None else None
    p_value = verdict.adjusted_p_value
    fewest, most = verdict.num_seeds
    seeds = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return {
        "scores": verdict_title(verdict),
        "verdict": verdict.text,
        "condition": condition_text(verdict),
        "claims": verdict.claims_effect and verdict.kind != "cannot say",
        "gain": gain_text(verdict, answer.unit),
        "unit": answer.unit,
        "p_value": _p_text(p_value),
        "trials": str(verdict.num_trials),
        "basis": f"{_counted(verdict.num_weights, 'weight')}, {seeds} {_noun(most, 'seed')} each",
        "untuned": panel.describe(untuned) if panel is not None and untuned is not None else "-",
    }


def _counted(count: int, noun: str) -> str:
    return f"{count} {_noun(count, noun)}"


def _noun(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"


def _p_text(p_value: float | None) -> str:
    if p_value is None:
        return "-"
    return "< 0.001" if p_value < SMALL_P else f"{p_value:.2g}"


def next_lines(findings: Findings) -> list[str]:
    """The trials to run next where nothing can be said."""
    if findings.lead is None or not findings.is_about_plw:
        return []
    lines = []
    for run in findings.lead.next_runs:
        cell = ", ".join(part for part in run.cell if part)
        lines.append(f"PLW {run.plw:g}, seed {run.seed}" + (f" ({cell})" if cell else ""))
    return lines


def next_reason(findings: Findings) -> str:
    """Why these trials are next, in a sentence; empty where there are none."""
    design = findings.lead.follow_up if findings.lead is not None else None
    if design is None or not next_lines(findings):
        return ""
    return f"Why these: {design.reason}."


def prospect_line(findings: Findings) -> str:
    """What the next trials would show; empty where it is not known."""
    design = findings.lead.follow_up if findings.lead is not None else None
    return prospect_text(design) if design is not None and findings.is_about_plw else ""


def front_rows(findings: Findings) -> dict[str, Any] | None:
    """The Pareto front over the groups; None where there is no such thing."""
    answer = findings.lead
    if answer is None or not answer.front:
        return None
    front = answer.front
    groups = list(front[0].points)
    digits = _decimals([value for point in front for value in point.points.values()], answer.unit)
    return {
        "reference": f"{front[0].plw:g}",
        "groups": [group.replace("_", " ") for group in groups],
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
    """One for points; for losses on any scale, three digits of the largest difference."""
    largest = max(abs(each) for each in differences)
    if unit == "points" or largest == 0:
        return 1
    return max(0, 2 - math.floor(math.log10(largest)))


def regulariser_rows(findings: Findings) -> list[list[str]]:
    """Each regulariser's setting: base, PLW, seeds, its score, and the difference from none."""
    panel = findings.panels[0] if findings.panels else None
    if panel is None:
        return []
    return [
        [
            f"{one.label} ({one.base})" if one.base else one.label,
            f"{one.prompt_loss_weight:g}",
            str(one.num_seeds),
            _cell(panel, one.estimate),
            _difference(one.difference, one.difference_low, one.difference_high, panel.unit),
        ]
        for one in findings.regularisers
    ]


def _difference(value: float | None, low: float | None, high: float | None, unit: str) -> str:
    if value is None:
        return "-"
    digits = ".1f" if unit == "points" else ".3f"
    if low is None or high is None:
        return f"{value:+{digits}}, no interval"
    return f"{value:+{digits}} ({low:+{digits}} to {high:+{digits}})"


def means_note(panels: Sequence[Panel]) -> str:
    """How the values and intervals of points come about, in a sentence or two."""
    if any(panel.is_within_seeds for panel in panels):
        return (
            "Values are less their seed's level (what a seed does to all weights alike), as the "
            "verdicts compare weights within seeds; intervals (95%) are within seeds."
        )
    kinds = {point.interval for panel in panels for point in panel.points} - {None}
    over = {"seeds": "over seeds", "items": "over items"}
    named = " or, with one seed, ".join(over[kind] for kind in ("seeds", "items") if kind in kinds)
    return f"Intervals (95%) are {named}." if named else ""


def panel_table(panels: Sequence[Panel], most: int) -> dict[str, Any] | None:
    """A row for each setting and a column for each series; None where there is nothing to show."""
    columns = [(panel, series) for panel in panels for series in panel.series if series.points]
    # The series of a panel are cells, which are rows of their own, or several measures.
    settings: dict[tuple[str, float, str], dict[str, str]] = {}
    for panel, series in columns:
        for point in series.points:
            own = settings.setdefault(_key(panel, series, point), {})
            own[_column(panel, series)] = _cell(panel, point)
    if not settings:
        return None
    names = list(dict.fromkeys(_column(panel, series) for panel, series in columns))
    rows = [
        [
            f"{plw:g}",
            ", ".join(filter(None, [label, other])),
            *(own.get(name, "-") for name in names),
        ]
        for (label, plw, other), own in sorted(settings.items(), key=lambda item: item[0])
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
    unit = f" ({panel.unit}{', from own mean' if panel.is_relative else ''})"
    source = series.label.partition(",")[0] if panel.kind == "mechanism" else ""
    source = f", {source}" if source.endswith("prompts") else ""
    return f"{panel.title}{source}{unit}"


def _cell(panel: Panel, estimate: Estimate) -> str:
    value = panel.format(estimate.value)
    if estimate.ci_low is None or estimate.ci_high is None:
        return value
    return f"{value} ({panel.format(estimate.ci_low)} to {panel.format(estimate.ci_high)})"


def cost_lines(cost: Cost) -> list[str]:
    """What the sweep took, and where it is not known, how it would be."""
    if not cost.held_hours and not cost.scorer_hours:
        return ["The trials' records do not say how long they held their workers."]
    lines = [f"Trials held their workers for {_hours(cost.held_hours)}, over all attempts."]
    if cost.scorer_hours:
        lines.append(f"Scoring beside them held scorers for {_hours(cost.scorer_hours)}.")
    if cost.gpu_hours is None:
        lines.append(
            "GPU-hours are unknown: the spec gives neither resources.gpus_per_worker nor "
            "resources.price_per_gpu_hour."
        )
    elif cost.gpu_hours:
        lines.append(f"That is {cost.gpu_hours:.2f} GPU-hours.")
    else:
        lines.append("No GPU took part.")
    if cost.money is not None:
        lines.append(f"At {cost.price_per_gpu_hour:g} for a GPU-hour they cost {cost.money:.2f}.")
    return lines


def _hours(hours: float) -> str:
    return f"{hours:.2f} h" if hours >= 1 else f"{hours * 60:.1f} min"
