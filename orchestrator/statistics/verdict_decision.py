"""Decide a verdict from the estimates: kind, numbers and text."""

from dataclasses import replace
from typing import Any

import numpy as np

from orchestrator.foundation.plw_scale import plw_from_w_p
from orchestrator.statistics import messages
from orchestrator.statistics.confidence_set import Pieces, confidence_set, significantly_worse
from orchestrator.statistics.estimates import t_quantile
from orchestrator.statistics.gains import corrected_gain
from orchestrator.statistics.study import Study, has_zero_noise
from orchestrator.statistics.trial_points import OVERALL, Cell, Trials
from orchestrator.statistics.verdict import Kind, Verdict
from orchestrator.statistics.weight_analysis import WeightAnalysis
from orchestrator.statistics.weight_effects import MIN_CURVE_DF

LEVEL = 0.05
_NUM_PLACES = 21
_TOUCHING = 1e-9


def make_verdict(analysis: WeightAnalysis, adjusted: float, study: Study) -> Verdict:
    """Return the verdict on `analysis` with its adjusted p-value."""
    pieces = confidence_set(analysis)
    difference, most = _differences(analysis)
    most = max(most, analysis.observed_range or 0.0)
    counts = _counts(study.trials, analysis.group, analysis.cell)
    # This is False if there were too many repeated weights to compare them individually.
    is_tested = analysis.means is not None or counts["num_seeds"][1] < 2
    gain = corrected_gain(analysis)
    tried = np.unique(analysis.w_p)
    best = analysis.optimum
    nearest = float(tried[np.abs(tried - best).argmin()])
    found = Verdict(
        group=analysis.group,
        cell=analysis.cell,
        kind=_kind(analysis, pieces, adjusted, is_same=most < study.table.margin and is_tested),
        text="",
        has_effect=adjusted < LEVEL,
        **counts,
        method=analysis.method,
        best_plw=_plw(best, study.trials),
        nearest_plw=_plw(nearest, study.trials),
        pieces=tuple((_plw(low, study.trials), _plw(high, study.trials)) for low, high in pieces),
        tied_plws=_tried_in(pieces, analysis, study.trials),
        worse_plws=_worse(analysis, study.trials) if adjusted < LEVEL else (),
        p_value=analysis.p_value,
        adjusted_p_value=adjusted,
        lack_of_fit_p_value=analysis.lack_of_fit,
        interaction_p_value=analysis.interaction_p_value,
        difference=difference,
        difference_high=most,
        reference_plw=_plw(gain.reference_w_p, study.trials),
        gain=gain.value,
        gain_low=gain.low,
        gain_high=gain.high,
        is_within_seeds=study.effects[analysis.group].is_blocked,
    )
    text = messages.verdict_text(
        found, study.table.margin, study.table.shown_unit, (analysis.low, analysis.high)
    )
    return replace(found, text=text)


def _plw(w_p: float, trials: Trials) -> float:
    """Return the PLW of a w_p; at the w_p of a trial, exactly the trial's PLW."""
    index = int(np.abs(trials.w_p - w_p).argmin())
    is_tried = abs(trials.w_p[index] - w_p) < _TOUCHING
    return float(trials.plw[index]) if is_tried else plw_from_w_p(w_p)


def _tried_in(pieces: Pieces, analysis: WeightAnalysis, trials: Trials) -> tuple[float, ...]:
    """Return the tried weights in the pieces if only tried weights are compared, else empty."""
    if analysis.method != "means":
        return ()
    return tuple(
        _plw(at, trials)
        for at in analysis.w_p
        if any(low - _TOUCHING <= at <= high + _TOUCHING for low, high in pieces)
    )


def _worse(analysis: WeightAnalysis, trials: Trials) -> tuple[float, ...]:
    """Return the tried weights that are not best, if only tried weights are compared."""
    if analysis.method != "means":
        return ()
    assert analysis.pairs is not None
    is_worse = significantly_worse(analysis.pairs)
    return tuple(_plw(at, trials) for at in analysis.w_p[is_worse])


def insufficiency(analysis: WeightAnalysis, study: Study) -> str:
    """Return the reason why fitted scores allow no verdict; empty if they allow one."""
    group, trials = analysis.group, study.trials
    if trials.is_share:
        scores = {row.score for row in study.table.rows if group in (row.group, OVERALL)}
        if scores in ({0.0}, {1.0}):
            return messages.uniform_scores_text(analysis.num_trials, scores.pop())
    effects = study.effects[group]
    if trials.is_confounded:
        return messages.confounded_text()
    if effects.has_own_rates and effects.total_df < MIN_CURVE_DF - 0.5:
        return messages.own_rates_text(effects.total_df)
    if analysis.means is None and effects.total_df < MIN_CURVE_DF - 0.5:
        return messages.too_few_trials_text(effects.total_df)
    if effects.noise is None:
        return messages.too_few_trials_text(0.0)
    return messages.no_noise_text() if has_zero_noise(study, group) else ""


def _kind(analysis: WeightAnalysis, pieces: Pieces, adjusted: float, *, is_same: bool) -> Kind:
    if is_same:
        return "no effect"
    at_low = pieces[0][0] <= analysis.w_p[0] + _TOUCHING
    at_high = pieces[-1][1] >= analysis.w_p[-1] - _TOUCHING
    if adjusted >= LEVEL or (at_low and at_high):
        return "cannot say"
    is_single = len(pieces) == 1
    best = analysis.optimum
    if analysis.method == "means" and sum(high > low for low, high in pieces) + len(pieces) > 1:
        return "tied"
    if is_single and at_high and best >= analysis.w_p[-1] - _TOUCHING:
        return "rises"
    if is_single and at_low and best <= analysis.w_p[0] + _TOUCHING:
        return "falls"
    return "best"


def _differences(analysis: WeightAnalysis) -> tuple[float, float]:
    """Return the largest difference within the range: estimate and 95% upper bound.

    Each pair of weights has a separate 95% limit. "No effect" requires all limits to be within the
    margin, so more pairs make that claim harder, never easier.
    """
    if analysis.method == "means":
        estimates, size = analysis.pairs, len(analysis.w_p)
        first, second = np.triu_indices(size, 1)
        rows = np.eye(size)[second] - np.eye(size)[first]
    else:
        estimates = analysis.curve
        places = np.linspace(analysis.low, analysis.high, _NUM_PLACES)
        first, second = np.triu_indices(_NUM_PLACES, 1)
        start, end = places[first], places[second]
        rows = np.column_stack([end - start, end**2 - start**2])
    assert estimates is not None
    values, errors, df = estimates.contrasts(rows)
    most = np.abs(values) + t_quantile(df, 0.975) * errors
    return float(np.abs(values).max()), float(most.max())


def unfitted_verdict(
    group: str, study: Study, cell: Cell | None = None, *, has_groups: bool = True
) -> Verdict:
    """Return the verdict on a group to which nothing could be fitted.

    Args:
        has_groups: False if `group` is the mean of several, of which the study lacks some.
    """
    counts = _counts(study.trials, group, cell, has_scores=has_groups)
    effects = study.effects.get(group)
    if study.trials.is_confounded:
        text = messages.confounded_text()
    elif effects is not None and effects.has_own_rates and counts["num_weights"] > 1:
        text = messages.own_rates_text(effects.total_df)
    else:
        text = messages.unfitted_text(
            counts["num_weights"], counts["num_trials"], len(study.trials.cells)
        )
    return Verdict(group=group, cell=cell, kind="cannot say", text=text, has_effect=False, **counts)


def inconclusive_verdict(analysis: WeightAnalysis, study: Study, text: str) -> Verdict:
    """Return the verdict on scores that can be shown but do not allow a conclusion."""
    return Verdict(
        group=analysis.group,
        cell=analysis.cell,
        kind="cannot say",
        text=text,
        has_effect=False,
        **_counts(study.trials, analysis.group, analysis.cell),
        best_plw=_plw(analysis.optimum, study.trials),
    )


def _counts(
    trials: Trials, group: str, cell: Cell | None, *, has_scores: bool = True
) -> dict[str, Any]:
    """Return the numbers of trials, weights, seeds per weight and cell parts with scores."""
    present = np.zeros(len(trials.plw), dtype=bool)
    if has_scores:
        present = ~np.isnan(trials.group_values(group))
    if cell is not None:
        present &= trials.cell == trials.cells.index(cell)
    seeds: dict[tuple[int, float], set[str]] = {}
    for number in np.flatnonzero(present):
        seeds.setdefault((trials.cell[number], trials.plw[number]), set()).add(trials.seed[number])
    sizes = [len(found) for found in seeds.values()] or [0]
    parts = zip(*{trials.cells[number] for number, _ in seeds}, strict=True)
    return {
        "num_trials": int(present.sum()),
        "num_weights": len({plw for _, plw in seeds}),
        "num_seeds": (min(sizes), max(sizes)),
        "num_cell_parts": tuple(len(set(part)) for part in parts) or (0, 0, 0),
    }
