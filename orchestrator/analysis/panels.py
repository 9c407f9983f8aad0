"""What is shown over PLW: groups with their fitted curves, benchmarks, and the mechanism."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from evals.results.scores import ScoreCard
from orchestrator.analysis.findings import Best, Estimate, Line, Panel, Series
from orchestrator.analysis.observed import TrialValue, points_of
from orchestrator.record.folder import TrialRecord
from orchestrator.statistics.conclusions import Answer, SeedLevel
from orchestrator.statistics.confidence_bands import DrawnCurve
from orchestrator.statistics.table import ScoreRow
from orchestrator.statistics.trial_points import OVERALL
from orchestrator.statistics.verdict import Verdict

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
    """A panel for the leading verdict and each group, with the lines that verdicts rest on.

    Where verdicts compare within seeds, each value is less its seed's level, so that the intervals
    of the points are within seeds too.

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
        levels = [level for level in answer.seed_levels if level.group == group]
        values = _without_levels(values, levels, is_share)
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
                is_within_seeds=bool(levels),
                best=_best(verdict),
            )
        )
    return panels


def _best(verdict: Verdict) -> Best | None:
    """Where the best weight may be; None where the scores do not show that PLW matters."""
    if verdict.cell is not None or not verdict.claims_effect or verdict.nearest_plw is None:
        return None
    return Best(
        plw=verdict.best_plw if verdict.names_weight else None,
        nearest_plw=verdict.nearest_plw,
        pieces=list(verdict.pieces),
        tied_plws=list(verdict.tied_plws),
    )


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


@dataclass(frozen=True, kw_only=True)
class _Value:
    """A trial's value of a group: see `TrialValue`."""

    cell: Cell
    seed: str
    value: float
    error: float | None
    num_items: int
    level: float = 0.0
    noise_share: float = 1.0


_Values = dict[str, _Value]


def _group_values(rows: Sequence[ScoreRow], group: str | None, is_share: bool) -> _Values:
    """By trial, its mean of its group's benchmarks, or of its groups' means overall.

    Trials that lack a benchmark which another has are left out: their means do not compare.
    """
    if group == OVERALL:
        groups = list(dict.fromkeys(row.group for row in rows))
        each = [_group_values(rows, name, is_share) for name in groups]
        shared = [trial for trial in each[0] if all(trial in values for values in each)]
        return {trial: _mean([values[trial] for values in each]) for trial in shared}
    own = [row for row in rows if group is None or row.group == group]
    by_trial: dict[str, list[ScoreRow]] = {}
    for row in own:
        by_trial.setdefault(row.trial, []).append(row)
    most = max((len(found) for found in by_trial.values()), default=0)
    scale = _POINTS if is_share else 1.0
    return {
        trial: _mean([_value(row, scale) for row in found])
        for trial, found in by_trial.items()
        if len(found) == most
    }


def _value(row: ScoreRow, scale: float) -> _Value:
    error = row.standard_error
    return _Value(
        cell=row.cell,
        seed=row.seed,
        value=row.score * scale,
        error=None if error is None else error * scale,
        num_items=row.num_items or 0,
    )


def _mean(parts: Sequence[_Value]) -> _Value:
    errors = [part.error for part in parts if part.error is not None]
    return replace(
        parts[0],
        value=_average([part.value for part in parts]),
        error=math.hypot(*errors) / len(parts) if len(errors) == len(parts) else None,
        num_items=sum(part.num_items for part in parts),
    )


def _without_levels(values: _Values, levels: Sequence[SeedLevel], is_share: bool) -> _Values:
    """The values less their seeds' levels; those of losses were turned around to be fitted.

    A level is estimated from the n trials of its seed, so that 1 - 1/n of a trial's noise is left.
    Source: Morey 2008, on within-subject intervals.
    """
    sign = 1.0 if is_share else -1.0
    of_seed = {(level.cell, level.seed): sign * level.level for level in levels}
    size = Counter((own.cell, own.seed) for own in values.values())

    def without(own: _Value) -> _Value:
        block = (own.cell, own.seed)
        if block not in of_seed:
            return own
        level = of_seed[block]
        share = 1 - 1 / size[block]
        return replace(own, value=own.value - level, level=level, noise_share=share)

    return {trial: without(own) for trial, own in values.items()}


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
    for trial_id, own in values.items():
        cells.setdefault(own.cell, []).append(trial_id)
    bases = {cell[:2] for cell in cells}
    is_relative = len(bases) > 1
    levels = {
        base: _average([own.value for own in values.values() if own.cell[:2] == base])
        for base in bases
    }
    lines = {curve.cell: curve for curve in curves}
    found = []
    for cell, ids in cells.items():
        level = levels[cell[:2]] if is_relative else 0.0
        parts = [
            TrialValue(
                trial=trials[each],
                value=values[each].value - level,
                error=values[each].error,
                num_items=values[each].num_items,
                level=values[each].level,
                noise_share=values[each].noise_share,
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
        method=curve.method,
        w_p=list(curve.w_p),
        value=[level + sign * each for each in curve.rise],
        low=None if low is None else [level + sign * each for each in low],
        high=None if high is None else [level + sign * each for each in high],
    )


def _average(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _untuned(values: _Values) -> Estimate | None:
    """The untuned model's own value with the interval of its items."""
    for own in values.values():
        half = None if own.error is None else 1.96 * own.error
        return Estimate(
            value=own.value,
            ci_low=None if half is None else max(own.value - half, 0.0),
            ci_high=None if half is None else own.value + half,
            interval=None if half is None else "items",
            num_items=own.num_items,
        )
    return None
