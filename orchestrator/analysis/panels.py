"""Build panels over PLW: groups with their fitted curves, benchmarks, and the mechanism."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from evals.results.scores import ScoreCard
from orchestrator.analysis.findings import Best, Estimate, Line, Panel, Series
from orchestrator.analysis.observations import TrialValue, make_points
from orchestrator.record.folder import TrialRecord
from orchestrator.statistics.aggregates import Z_95
from orchestrator.statistics.conclusions import Conclusions, SeedLevel
from orchestrator.statistics.confidence_bands import CurveBand
from orchestrator.statistics.learning_rates import rates_as_conditions
from orchestrator.statistics.messages import capitalize, group_name
from orchestrator.statistics.table import ScoreRow
from orchestrator.statistics.trial_points import OVERALL
from orchestrator.statistics.verdict import Verdict

Cell = tuple[str, str, str]

_POINTS = 100.0
_ALL = "all together"
# Measures of the mechanism that trials record (arXiv 2401.13586), and how to record them.
_MECHANISM: tuple[tuple[str, str, str, tuple[str, ...], str], ...] = (
    ("loss_rsd", "Loss stability", "relative sd of the training loss", ("loss_rsd",),
     "train for at least ten logged steps"),
    ("distance", "Distance from the pre-trained weights", "L2 norm", ("distance",),
     "it is measured at the end of full fine-tuning, not with LoRA"),
    ("memorisation", "Memorisation", "BLEU with the true completion",
     ("training_bleu", "heldout_bleu"), "set evals.memorisation"),
    ("generation_length", "Generation length", "new tokens, mean",
     ("training_generation_length", "heldout_generation_length"), "set evals.memorisation"),
)  # fmt: skip


def verdict_panels(
    conclusions: Conclusions,
    rows: Sequence[ScoreRow],
    trials: Mapping[str, TrialRecord],
    untuned: Sequence[ScoreRow] | None,
    implied: Mapping[str, Collection[str]],
) -> list[Panel]:
    """Return one panel for the leading verdict and one per group, with the verdicts' curves.

    If verdicts compare within seeds, each seed's level is subtracted from its values, so that the
    intervals of points are within seeds as well.

    Args:
        rows: the scores from which the conclusions were drawn.
        untuned: scores of the untuned model, if there is one base.
        implied: searched settings to omit from `other_settings`, by base.
    """
    if conclusions.best_rates:
        rows = rates_as_conditions(rows)
    is_share = conclusions.unit == "points"
    # Verdicts over all cells come first; in reverse order, they replace those on single cells.
    verdicts = {verdict.group: verdict for verdict in reversed(conclusions.verdicts)}
    panels = []
    for group in dict.fromkeys(verdict.group for verdict in conclusions.verdicts):
        values = _group_values(rows, group, is_share)
        verdict = verdicts[group]
        curves = [curve for curve in conclusions.curves if curve.group == group]
        levels = [level for level in conclusions.seed_levels if level.group == group]
        values = _without_levels(values, levels, is_share)
        compared = {best.cell for best in conclusions.best_rates}
        series, is_relative = _series(
            values, trials, curves, implied, is_share=is_share, compared=compared
        )
        if compared:
            series = [each.model_copy(update={"is_compared": each.cell in compared})
                      for each in series]  # fmt: skip
        reference = None
        if untuned and not is_relative:
            reference = _untuned(_group_values(untuned, group, is_share))
        panels.append(
            Panel(
                id=group,
                kind="answer",
                title=capitalize(group_name(group)),
                unit=conclusions.unit,
                higher_is_better=is_share,
                is_relative=is_relative,
                series=series,
                untuned=reference,
                is_within_seeds=bool(levels),
                best=_best(verdict),
                benchmark=_only_benchmark(rows, group),
            )
        )
    return panels


def _only_benchmark(rows: Sequence[ScoreRow], group: str) -> str | None:
    names = {row.benchmark for row in rows if row.group == group}
    return names.pop() if len(names) == 1 and names != {group} else None


def _best(verdict: Verdict) -> Best | None:
    """Return the best weight; None if the scores do not show that PLW matters."""
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
    implied: Mapping[str, Collection[str]],
) -> list[Panel]:
    """Return one panel per benchmark, for groups with several benchmarks."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if row.benchmark not in names.setdefault(row.group, []):
            names[row.group].append(row.benchmark)
    panels = []
    for name in (name for group in names.values() if len(group) > 1 for name in group):
        values = _group_values([row for row in rows if row.benchmark == name], None, True)
        series, is_relative = _series(values, trials, (), implied, is_share=True)
        untuned_rows = [row for row in untuned or () if row.benchmark == name]
        panels.append(
            Panel(
                id=name,
                kind="benchmark",
                title=name.replace("_", " "),
                unit="points",
                higher_is_better=True,
                is_relative=is_relative,
                series=series,
                untuned=None if is_relative else _untuned(_group_values(untuned_rows, None, True)),
            )
        )
    return panels


def mechanism_panels(
    trials: Sequence[TrialRecord],
    cards: Mapping[str, ScoreCard],
    labels: Mapping[str, str],
    implied: Mapping[str, Collection[str]],
) -> tuple[list[Panel], list[str]]:
    """Return one panel per recorded measure of the mechanism, and messages on missing ones."""
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
                    points = make_points(
                        values, bounds=(0.0, math.inf), implied=implied.get(base, ())
                    )
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


def _recorded(trial: TrialRecord, card: ScoreCard | None, field: str) -> float | None:
    value: float | None = getattr(trial, field, None)
    if value is None and card is not None and field in (scores := card.by_name()):
        value = scores[field].value
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True, kw_only=True)
class _Value:
    """The value of a trial in a group; see `TrialValue` for the fields."""

    cell: Cell
    seed: str
    value: float
    error: float | None
    interval: tuple[float, float] | None
    num_items: int
    level: float = 0.0
    noise_share: float = 1.0


_Values = dict[str, _Value]


def _group_values(rows: Sequence[ScoreRow], group: str | None, is_share: bool) -> _Values:
    """Return the mean score of each trial over the benchmarks of a group, by trial id.

    The overall score is the mean over groups. Trials that lack a benchmark are omitted, because
    their means are not comparable.
    """
    if group == OVERALL:
        groups = list(dict.fromkeys(row.group for row in rows))
        each = [_group_values(rows, name, is_share) for name in groups]
        shared = [trial for trial in each[0] if all(trial in values for values in each)]
        return {trial: _mean([values[trial] for values in each]) for trial in shared}
    group_rows = [row for row in rows if group is None or row.group == group]
    by_trial: dict[str, list[ScoreRow]] = {}
    for row in group_rows:
        by_trial.setdefault(row.trial, []).append(row)
    most = max((len(found) for found in by_trial.values()), default=0)
    scale = _POINTS if is_share else 1.0
    return {
        trial: _mean([_value(row, scale) for row in found])
        for trial, found in by_trial.items()
        if len(found) == most
    }


def _value(row: ScoreRow, scale: float) -> _Value:
    error, interval = row.standard_error, row.interval
    return _Value(
        cell=row.cell,
        seed=row.seed,
        value=row.score * scale,
        error=None if error is None else error * scale,
        interval=None if interval is None else (interval[0] * scale, interval[1] * scale),
        num_items=row.num_items or 0,
    )


def _mean(parts: Sequence[_Value]) -> _Value:
    errors = [part.error for part in parts if part.error is not None]
    return replace(
        parts[0],
        value=_average([part.value for part in parts]),
        error=math.hypot(*errors) / len(parts) if len(errors) == len(parts) else None,
        interval=parts[0].interval if len(parts) == 1 else None,
        num_items=sum(part.num_items for part in parts),
    )


def _without_levels(values: _Values, levels: Sequence[SeedLevel], is_share: bool) -> _Values:
    """Return the values minus the levels of their seeds.

    For losses, levels have the opposite sign. A level is estimated from the n trials of its seed,
    so a share of 1 - 1/n of a trial's noise variance remains.

    Source: Morey 2008, on within-subject intervals.
    """
    sign = 1.0 if is_share else -1.0
    of_seed = {(level.cell, level.seed): sign * level.level for level in levels}
    size = Counter((one.cell, one.seed) for one in values.values())

    def without(one: _Value) -> _Value:
        block = (one.cell, one.seed)
        if block not in of_seed:
            return one
        level = of_seed[block]
        share = 1 - 1 / size[block]
        return replace(one, value=one.value - level, interval=None, level=level, noise_share=share)

    return {trial: without(one) for trial, one in values.items()}


def _series(
    values: _Values,
    trials: Mapping[str, TrialRecord],
    curves: Sequence[CurveBand],
    implied: Mapping[str, Collection[str]],
    *,
    is_share: bool,
    compared: Collection[Cell] = (),
) -> tuple[list[Series], bool]:
    """Return one series per cell, and whether the values are relative.

    With several models or data sets, values are relative to the mean of their model and data set.

    Args:
        compared: the cells of the verdict over all cells, whose values define that mean; empty for
            all.
    """
    cells: dict[Cell, list[str]] = {}
    for trial_id, one in values.items():
        cells.setdefault(one.cell, []).append(trial_id)
    bases = {cell[:2] for cell in cells}
    is_relative = len(bases) > 1
    levels = {}
    for base in bases:
        of_base = [one for one in values.values() if one.cell[:2] == base]
        averaged = [one for one in of_base if one.cell in compared] or of_base
        levels[base] = _average([one.value for one in averaged])
    lines = {curve.cell: curve for curve in curves}
    found = []
    for cell, ids in cells.items():
        level = levels[cell[:2]] if is_relative else 0.0
        parts = [
            TrialValue(
                trial=trials[each],
                value=values[each].value - level,
                error=values[each].error,
                interval=None if is_relative else values[each].interval,
                num_items=values[each].num_items,
                level=values[each].level,
                noise_share=values[each].noise_share,
            )
            for each in ids
        ]
        bounds = (0.0, _POINTS) if is_share and not is_relative else (-math.inf, math.inf)
        curve = lines.get(cell, lines.get(None) if len(cells) == 1 else None)
        found.append(
            Series(
                label=", ".join(part for part in cell if part),
                cell=cell,
                points=make_points(
                    parts, bounds=bounds, implied=implied.get(trials[ids[0]].base, ())
                ),
                line=_line(curve, _average([part.value for part in parts]), is_share),
            )
        )
    if len(cells) > 1 and None in lines and (is_relative or len(lines) == 1):
        everything = _average([p.value for s in found for p in s.points])
        line = _line(lines[None], 0.0 if is_relative else everything, is_share)
        found.append(Series(label=_ALL, cell=None, points=[], line=line))
    return found, is_relative


def _line(curve: CurveBand | None, level: float, is_share: bool) -> Line | None:
    """Return the curve on the scale of the points; the fit used negated losses."""
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
        is_adjusted=curve.is_adjusted,
    )


def _average(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _untuned(values: _Values) -> Estimate | None:
    """Return the untuned model's value with the interval over its items."""
    for one in values.values():
        low, high = one.interval or (None, None)
        if one.interval is None and one.error is not None:
            low, high = max(one.value - Z_95 * one.error, 0.0), one.value + Z_95 * one.error
        return Estimate(
            value=one.value,
            ci_low=low,
            ci_high=high,
            interval=None if low is None else "items",
            num_items=one.num_items,
        )
    return None
