"""The sentences of verdicts and notes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.statistics.table import ScoreRow, plw_of
from orchestrator.statistics.trial_points import Trials
from orchestrator.statistics.weight_analysis import FIT_LEVEL
from orchestrator.statistics.weight_effects import MAX_SETTINGS, MIN_CURVE_DF, MIN_WEIGHTS

if TYPE_CHECKING:
    from orchestrator.statistics.outliers import Outlier
    from orchestrator.statistics.verdict import Verdict

_SMALLEST_PLW_SHOWN = 1e-4
_MOST_NAMED = 4
_FLOOR = 0.02


def plw_text(w_p: float) -> str:
    """The PLW of a w_p with two digits; tiny ones as 0."""
    return plw_label(plw_of(w_p))


def plw_label(plw: float) -> str:
    """An estimated PLW with two digits; tiny ones as 0."""
    return "0" if plw < _SMALLEST_PLW_SHOWN else f"{plw:.2g}"


def tried_label(plw: float) -> str:
    """A tried PLW as it was given, with four digits."""
    return f"{plw:.4g}"


def pieces_text(verdict: "Verdict") -> str:
    """The weights that may be best, such as `0.1 to 0.46`, or `0 or 0.3 to 1`."""
    label = tried_label if verdict.method == "means" else plw_label
    parts = []
    for start, end in verdict.pieces:
        low, high = label(start), label(end)
        parts.append(low if low == high else f"{low} to {high}")
    return " or ".join(parts)


def listed(parts: Sequence[str]) -> str:
    """Such as `a, b and c`."""
    return " and ".join([*([", ".join(parts[:-1])] if parts[1:] else []), parts[-1]])


def amount(value: float, unit: str) -> str:
    """Such as `2.1 points` or `0.031 nats per token`."""
    return f"{bare_amount(value, unit)} {unit}"


def bare_amount(value: float, unit: str) -> str:
    """The number alone, with the digits that the unit deserves."""
    # So that a gain of -0.04 points does not read as -0.0.
    return f"{value:.1f}".replace("-0.0", "0.0") if unit == "points" else f"{value:.3f}"


def verdict_text(
    verdict: "Verdict", margin: float, unit: str, w_p_range: tuple[float, float]
) -> str:
    """The verdict in words."""
    assert verdict.difference is not None
    assert verdict.difference_high is not None
    assert verdict.adjusted_p_value is not None
    if verdict.kind == "no effect":
        span = f"{plw_text(w_p_range[0])} to {plw_text(w_p_range[1])}"
        return (
            f"no effect: from PLW {span} no two weights differ by more than "
            f"{verdict.difference_high:.2g} {unit} (95%), within the margin of {margin:g}"
        )
    if verdict.kind == "cannot say" and not verdict.has_effect:
        return (
            "cannot say: no difference between weights is shown "
            f"(p = {verdict.adjusted_p_value:.2g}), and one of up to "
            f"{verdict.difference_high:.2g} {unit} is not ruled out"
        )
    if verdict.kind == "cannot say":
        return (
            f"cannot say which is best: PLW matters (p = {verdict.adjusted_p_value:.2g}), but the "
            f"best may be {pieces_text(verdict)}"
        )
    if verdict.kind == "tied":
        return _tied_text(verdict)
    if verdict.kind in ("rises", "falls"):
        return _end_text(verdict, unit, w_p_range)
    return _best_text(verdict)


def _best_text(verdict: "Verdict") -> str:
    assert verdict.best_plw is not None
    assert verdict.nearest_plw is not None
    if verdict.method == "means":
        return f"best PLW is {tried_label(verdict.best_plw)}, among the {verdict.num_weights} tried"
    nearest = f"; nearest tried: {tried_label(verdict.nearest_plw)}"
    near = nearest if verdict.nearest_plw != verdict.best_plw else ""
    return (
        f"best PLW is about {plw_label(verdict.best_plw)} (95% interval {pieces_text(verdict)}"
        f"{near})"
    )


def _tied_text(verdict: "Verdict") -> str:
    """Several tried weights that share the best."""
    tied = [tried_label(plw) for plw in verdict.tied_plws]
    if len(tied) == 2:
        shared = f"no difference is shown between PLW {tied[0]} and {tied[1]}"
    elif len(verdict.pieces) == 1 and len(tied) > _MOST_NAMED:
        shared = f"no difference is shown between the {len(tied)} weights {tied[0]} to {tied[-1]}"
    else:
        shared = f"no difference is shown between PLW {listed(tied)}"
    assert verdict.best_plw is not None
    return (
        f"tied: {shared}, the best of those tried (highest mean: {tried_label(verdict.best_plw)})"
    )


def _end_text(verdict: "Verdict", unit: str, w_p_range: tuple[float, float]) -> str:
    """The best weight is an end of the tried range; beyond it may be a better one, but for 0, 1."""
    assert verdict.best_plw is not None
    assert verdict.difference is not None
    is_rising = verdict.kind == "rises"
    end = tried_label(verdict.best_plw)
    is_open = w_p_range[1] < 1 if is_rising else w_p_range[0] > 0
    extreme = "highest" if is_rising else "lowest"
    beyond = f" the {extreme} tried;" if is_open else ""
    span = f"{amount(verdict.difference, unit)} over the range"
    if verdict.num_weights == 2:
        other = plw_text(w_p_range[0] if is_rising else w_p_range[1])
        text = f"PLW {end} is better than {other}, by {amount(verdict.difference, unit)}"
        return text if is_rising else f"{text} ({_difference_interval(verdict, unit)})"
    if verdict.method == "means":
        return f"best PLW is {end}, the {extreme} of the {verdict.num_weights} tried; {span}"
    verb = "rises towards" if is_rising else "falls from"
    start, stop = verdict.pieces[0]
    is_alone = plw_label(start) == plw_label(stop)
    bound = "" if is_alone else f" (95% interval {pieces_text(verdict)})"
    return f"{verb} {end}:{beyond} best PLW is {end}{bound}; {span}"


def _difference_interval(verdict: "Verdict", unit: str) -> str:
    """Of two weights whose lower one is better, so that no gain over the lower one is shown."""
    assert verdict.difference is not None
    assert verdict.difference_high is not None
    low = 2 * verdict.difference - verdict.difference_high
    ends = f"{bare_amount(low, unit)} to {bare_amount(verdict.difference_high, unit)}"
    return f"95% interval {ends}"


def few_text(df: float) -> str:
    """Something was fitted, and too few trials are left over."""
    left = "1 trial is" if round(df) == 1 else f"{df:.0f} trials are"
    return (
        f"cannot say: {left} left over to estimate noise from, and {MIN_CURVE_DF} are needed; "
        "a second seed of each weight would do"
    )


def floor_text(num_trials: int, share: float) -> str:
    """Scores that cannot tell trials apart, as where nothing is ever right."""
    return (
        f"cannot say: all {num_trials} trials score {share * 100:.0f}, where no weight can be seen "
        f"to be {'worse' if share else 'better'}; use {'harder' if share else 'easier'} benchmarks"
    )


def same_text() -> str:
    """Scores of which seeds agree, as counts of few items may."""
    return (
        "cannot say: repeated trials agree to the last digit, as scores of few items may, so the "
        "noise is not known; score more items"
    )


def unfitted_text(num_weights: int, num_trials: int, num_cells: int) -> str:
    """Why nothing could be fitted."""
    if num_weights < 2:
        return f"cannot say: two weights with scores are needed, and there {_are(num_weights)}"
    if num_weights < MIN_WEIGHTS:
        return (
            "cannot say: two weights need two degrees of freedom to estimate noise from, such as "
            "two seeds of each"
        )
    if num_cells > 1 and num_trials <= num_cells + 2:
        return (
            f"cannot say: {num_trials} trials of {num_cells} settings beside PLW leave hardly two "
            "that differ in PLW alone"
        )
    return (
        "cannot say: no trial is left over to estimate noise from; a second seed of each weight "
        "would do"
    )


def _are(count: int) -> str:
    return {0: "are none", 1: "is one"}.get(count, f"are {count}")


def rests_on_assumption(verdict: "Verdict") -> bool:
    """Whether a parabola was assumed that could not be tested."""
    return verdict.method == "assumed curve" and verdict.adjusted_p_value is not None


def condition_text(verdict: "Verdict") -> str:
    """What the verdict's optimum assumes, to be read with it; empty where nothing."""
    if rests_on_assumption(verdict):
        return (
            "assumes a parabola in w_p and equal noise, which too few repeated weights cannot test"
        )
    misfit = verdict.lack_of_fit_p_value
    if verdict.kind == "no effect":
        return ""
    if verdict.method == "means" and misfit is not None and misfit < FIT_LEVEL:
        return (
            f"a parabola in w_p may not fit (p = {misfit:.2g}), so only tried weights are compared"
        )
    return ""


def outlier_text(outlier: "Outlier", unit: str) -> str:
    """One outlier, such as `trial a1b2 (PLW 0.5, seed 2) is 21.3 points below ... `."""
    name = f"trial {outlier.trial} " if outlier.trial else "the trial of "
    where = f"PLW {tried_label(outlier.plw)}, seed {outlier.seed}"
    side = "above" if outlier.deviation > 0 else "below"
    return (
        f"{name}{f'({where})' if outlier.trial else where} is "
        f"{amount(abs(outlier.deviation), unit)} {side} what the other trials predict for "
        f"{outlier.group.replace('_', ' ').replace('heldout', 'held-out')} "
        f"(p = {outlier.p_value:.1g})"
    )


def notes_on(
    rows: Sequence[ScoreRow], trials: Trials, interaction_p_value: float | None
) -> list[str]:
    """What a reader must know beside the verdicts."""
    notes = []
    rates = {row.learning_rate for row in rows}
    if trials.is_confounded:
        notes.append(
            "the learning rate changed along with PLW: the differences may be the effect of either"
        )
    elif len(rates) == 1 and None not in rates:
        notes.append(
            f"every trial had the learning rate {rates.pop():g}, which is confounded with PLW: a "
            "weight may look worse only because it needs another one"
        )
    elif None in rates:
        notes.append("learning rates are not known, and may be confounded with PLW")
    own = [
        len({trials.seed[each] for each in np.flatnonzero(trials.plw == plw)})
        for plw in np.unique(trials.plw)
    ]
    if min(own) < 2:
        notes.append("some weights have a single seed, so their own noise is not known")
    num_settings = len(set(zip(trials.cell.tolist(), trials.plw.tolist(), strict=True)))
    if num_settings > MAX_SETTINGS:
        notes.append(
            f"{num_settings} weights are too many to compare one by one (at most {MAX_SETTINGS}): "
            "the verdict assumes a parabola in w_p and equal noise, also where weights are repeated"
        )
    if interaction_p_value is not None and interaction_p_value < 0.05:
        notes.append(
            f"models or data sets differ in their curves (p = {interaction_p_value:.2g}): read "
            "the verdict of each before the mean"
        )
    if np.isnan(trials.values).any():
        notes.append("trials that lack a group do not count overall")
    if trials.is_share and max(row.score for row in rows) < _FLOOR:
        notes.append(
            "all scores are below 0.02: they are near the floor, or were divided by 100 twice"
        )
    return notes
