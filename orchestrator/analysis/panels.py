"""What is shown over PLW: groups with their fitted curves, benchmarks, and the mechanism."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from evals.results.scores import ScoreCard
from orchestrator.analysis.findings import Estimate, Line, Panel, Series
from orchestrator.analysis.observed import TrialValue, points_of
from orchestrator.record.folder import TrialRecord
from orchestrator.statistics.conclusions import Answer
from orchestrator.statistics.confidence_bands import DrawnCurve
from orchestrator.statistics.table import ScoreRow
from orchestrator.statistics.trial_points import OVERALL

Cell = tuple[str, str, str]

_POINTS = 100.0
_ALL = "all together"
# What trials record of why PLW matters (arXiv 2401.13586), and how to have it recorded.
_MECHANISM: tuple[tuple[str, str, str, tuple[str, ...], str], ...] = (
    ("loss_rsd", "Loss stability", "relative sd of the training loss", ("loss_rsd",),
     "train for ten logged steps or more"),
    ("distance", "Distance from the pre-trained weights", "L2 norm", ("distance",),
     "it is measured at the end of every full fine-tune, and not under LoRA"),
    ("memorisation", "Memorisation", "BLEU with the true completion",
     ("training_bleu", "heldout_bleu"), "set evals.memorisation"),
    ("generation_length", "Generation length", "new tokens, mean",
     ("training_generation_length", "heldout_generation_length"), "set evals.memorisation"),
)  # fmt: skip


def answer_panels(
    answer: Answer,
    rows: Sequence[ScoreRow],
    trials: Mapping[str, TrialRecord],
    untuned: Sequence[ScoreRow] | None,
    told: Mapping[str, Collection[str]],
) -> list[Panel]:
    """A panel for the leading verdict and each group, with the curves that were fitted.

    Args:
        untuned: the scores of the untuned model, where there is one base.
        told: by base, the searched settings that go without saying.
    """
    is_share = answer.unit == "points"
    # A group in one cell has a curve without a verdict of its own; its panel is the group's.
    verdicts = {verdict.group: verdict for verdict in reversed(answer.verdicts)}
    panels = []
    for group in dict.fromkeys(verdict.group for verdict in answer.verdicts):
        values = _group_values(rows, group, is_share)
        verdict = verdicts[group]
        curves = [curve for curve in answer.curves if curve.group == group]
        series, is_relative = _series(values, trials, curves, told, is_share=is_share)
        reference = None
        if untuned and not is_relative:
            reference = _untuned(_group_values(untuned, group, is_share))
        panels.append(
            Panel(
                id=group,
                kind="answer",
                title=group_title(group),
                unit=answer.unit,
                higher_is_better=is_share,
                is_relative=is_relative,
                series=series,
                untuned=reference,
                best_plw=verdict.best_plw if verdict.cell is None else None,
                pieces=list(verdict.pieces) if verdict.cell is None else [],
            )
        )
    return panels


def benchmark_panels(
    rows: Sequence[ScoreRow],
    trials: Mapping[str, TrialRecord],
    untuned: Sequence[ScoreRow] | None,
    told: Mapping[str, Collection[str]],
) -> list[Panel]:
    """A panel for each benchmark of the groups that have several."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if row.benchmark not in names.setdefault(row.group, []):
            names[row.group].append(row.benchmark)
    panels = []
    for name in (name for group in names.values() if len(group) > 1 for name in group):
        values = _group_values([row for row in rows if row.benchmark == name], None, True)
        series, is_relative = _series(values, trials, (), told, is_share=True)
        own = [row for row in untuned or () if row.benchmark == name]
        panels.append(
            Panel(
                id=name,
                kind="benchmark",
                title=name.replace("_", " "),
                unit="points",
                higher_is_better=True,
                is_relative=is_relative,
                series=series,
                untuned=None if is_relative else _untuned(_group_values(own, None, True)),
            )
        )
    return panels


def mechanism_panels(
    trials: Sequence[TrialRecord],
    cards: Mapping[str, ScoreCard],
    labels: Mapping[str, str],
    told: Mapping[str, Collection[str]],
) -> tuple[list[Panel], list[str]]:
    """A panel for what the trials recorded of the mechanism, and what they did not, in words."""
    panels, missing = [], []
    for panel_id, title, unit, fields, remedy in _MECHANISM:
        series = []
        for base, label in labels.items():
            for field in fields:
                values = [
                    TrialValue(trial=trial, value=value)
                    for trial in trials
                    if trial.base == base
                    and (value := _recorded(trial, cards.get(trial.id), field)) is not None
                ]
                source = field.partition("_")[0] + " prompts" if len(fields) > 1 else ""
                name = ", ".join(filter(None, [source.replace("heldout", "held-out"), label]))
                if values:
                    points = points_of(values, bounds=(0.0, math.inf), told=told.get(base, ()))
                    series.append(Series(label=name, cell=(label, "", ""), points=points))
        if series:
            panels.append(
                Panel(
                    id=panel_id,
                    kind="mechanism",
                    title=title,
                    unit=unit,
                    higher_is_better=None,
                    is_relative=False,
                    series=series,
                )
            )
        else:
            missing.append(f"{title} was not recorded: {remedy}.")
    return panels, missing


def group_title(group: str) -> str:
    """`Multiple choice` for `multiple_choice`."""
    title = group.replace("_", " ").replace("heldout", "held-out")
    return title[:1].upper() + title[1:]


def _recorded(trial: TrialRecord, card: ScoreCard | None, field: str) -> float | None:
    value: float | None = getattr(trial, field, None)
    if value is None and card is not None and field in (scores := card.by_name()):
        value = scores[field].value
    return value if value is not None and math.isfinite(value) else None


# By trial: its cell, and the value of the group with its error and number of items.
_Values = dict[str, tuple[Cell, dict[str, Any]]]


def _group_values(rows: Sequence[ScoreRow], group: str | None, is_share: bool) -> _Values:
    """Each trial's mean of its group's benchmarks, or of its groups' means overall.

    Trials that lack a benchmark which another has are left out: their means do not compare.
    """
    if group == OVERALL:
        groups = list(dict.fromkeys(row.group for row in rows))
        each = [_group_values(rows, name, is_share) for name in groups]
        shared = [trial for trial in each[0] if all(trial in values for values in each)]
        return {
            trial: (each[0][trial][0], _mean([values[trial][1] for values in each]))
            for trial in shared
        }
    own = [row for row in rows if group is None or row.group == group]
    by_trial: dict[str, list[ScoreRow]] = {}
    for row in own:
        by_trial.setdefault(row.trial, []).append(row)
    most = max((len(found) for found in by_trial.values()), default=0)
    scale = _POINTS if is_share else 1.0
    return {
        trial: (found[0].cell, _mean([_part(row, scale) for row in found]))
        for trial, found in by_trial.items()
        if len(found) == most
    }


def _part(row: ScoreRow, scale: float) -> dict[str, Any]:
    error = row.standard_error
    return {
        "value": row.score * scale,
        "error": None if error is None else error * scale,
        "num_items": row.num_items or 0,
    }


def _mean(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    errors = [part["error"] for part in parts]
    return {
        "value": math.fsum(part["value"] for part in parts) / len(parts),
        "error": None if None in errors else math.hypot(*errors) / len(parts),
        "num_items": sum(part["num_items"] for part in parts),
    }


def _series(
    values: _Values,
    trials: Mapping[str, TrialRecord],
    curves: Sequence[DrawnCurve],
    told: Mapping[str, Collection[str]],
    *,
    is_share: bool,
) -> tuple[list[Series], bool]:
    """The points and the line of each cell; relative to the mean of their model and data set."""
    cells: dict[Cell, list[str]] = {}
    for trial_id, (cell, _) in values.items():
        cells.setdefault(cell, []).append(trial_id)
    bases = {cell[:2] for cell in cells}
    is_relative = len(bases) > 1
    levels = {
        base: _average([part["value"] for cell, part in values.values() if cell[:2] == base])
        for base in bases
    }
    lines = {curve.cell: curve for curve in curves}
    found = []
    for cell, ids in cells.items():
        level = levels[cell[:2]] if is_relative else 0.0
        parts = [
            TrialValue(
                trial=trials[each],
                **(values[each][1] | {"value": values[each][1]["value"] - level}),
            )
            for each in ids
        ]
        bounds = (0.0, _POINTS) if is_share and not is_relative else (-math.inf, math.inf)
        curve = lines.get(cell if len(cells) > 1 else None)
        found.append(
            Series(
                label=", ".join(part for part in cell if part),
                cell=cell,
                points=points_of(parts, bounds=bounds, told=told.get(trials[ids[0]].base, ())),
                line=_line(curve, _average([part.value for part in parts]), is_share),
            )
        )
    if len(cells) > 1 and None in lines and (is_relative or len(lines) == 1):
        everything = _average([p.value for s in found for p in s.points])
        line = _line(lines[None], 0.0 if is_relative else everything, is_share)
        found.append(Series(label=_ALL, cell=None, points=[], line=line))
    return found, is_relative


def _line(curve: DrawnCurve | None, level: float, is_share: bool) -> Line | None:
    """The curve on the scale of the points; losses were turned around to be fitted."""
    if curve is None:
        return None
    sign = 1.0 if is_share else -1.0
    low, high = (curve.low, curve.high) if is_share else (curve.high, curve.low)
    return Line(
        w_p=list(curve.w_p),
        value=[level + sign * each for each in curve.rise],
        low=None if low is None else [level + sign * each for each in low],
        high=None if high is None else [level + sign * each for each in high],
    )


def _average(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _untuned(values: _Values) -> Estimate | None:
    """The untuned model's own value with the interval of its items."""
    for _, part in values.values():
        half = None if part["error"] is None else 1.96 * part["error"]
        value = part["value"]
        return Estimate(
            value=value,
            ci_low=None if half is None else max(value - half, 0.0),
            ci_high=None if half is None else value + half,
            interval=None if half is None else "items",
            num_items=part["num_items"],
        )
    return None
