"""Format the sentences and numbers of verdicts, notes and reports."""

from collections.abc import Iterator, Sequence

import numpy as np

from orchestrator.foundation.plw_scale import plw_from_w_p
from orchestrator.statistics.learning_rates import BestRate
from orchestrator.statistics.outliers import Outlier
from orchestrator.statistics.table import ScoreRow, scale_warning
from orchestrator.statistics.trial_points import Trials
from orchestrator.statistics.verdict import Verdict
from orchestrator.statistics.weight_analysis import FIT_LEVEL
from orchestrator.statistics.weight_effects import MAX_SETTINGS, MIN_CURVE_DF, MIN_WEIGHTS

_SMALLEST_PLW_SHOWN = 1e-4
_LEVEL = 0.05
_MAX_P_DIGITS = 4
_SMALLEST_P_SHOWN = 0.001
_MAX_NAMED = 4


def format_plw(plw: float) -> str:
    """Return an estimated PLW with two significant digits; tiny values become 0."""
    return "0" if plw < _SMALLEST_PLW_SHOWN else f"{plw:.2g}"


def format_tried_plw(plw: float) -> str:
    """Return a tried PLW with up to four significant digits."""
    return f"{plw:.4g}"


def format_w_p_as_plw(w_p: float) -> str:
    """Return the PLW of a w_p with two significant digits; tiny values become 0."""
    return format_plw(plw_from_w_p(w_p))


def format_confidence_set(verdict: Verdict) -> str:
    """Return the weights that may be best, such as `0.1 to 0.46`, or `0 or 0.3 to 1`."""
    label = format_tried_plw if verdict.method == "means" else format_plw
    parts = []
    for start, end in verdict.pieces:
        low, high = label(start), label(end)
        parts.append(low if low == high else f"{low} to {high}")
    return " or ".join(parts)


def format_number(value: float, unit: str, *, signed: bool = False) -> str:
    """Return a score or difference: one decimal for points, three for other units."""
    digits = 1 if unit == "points" else 3
    # Adding 0.0 converts a rounded -0.0 to 0.0.
    return f"{round(value, digits) + 0.0:{'+' if signed else ''}.{digits}f}"


def format_amount(value: float, unit: str) -> str:
    """Return a number with its unit, such as `2.1 points` or `0.031 nats per token`."""
    return f"{format_number(value, unit)} {unit}"


def format_p_value(p_value: float | None) -> str:
    """Return `< 0.001`, two digits (more near 0.05, which two may hide), or `-` for None."""
    if p_value is None:
        return "-"
    if p_value < _SMALLEST_P_SHOWN:
        return f"< {_SMALLEST_P_SHOWN:g}"
    digits = 2
    while digits < _MAX_P_DIGITS and f"{p_value:.{digits}g}" == "0.05" and p_value != _LEVEL:
        digits += 1
    return f"{p_value:.{digits}g}"


def format_p_equation(p_value: float) -> str:
    """Return `p = 0.031` or `p < 0.001`."""
    text = format_p_value(p_value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def join_words(parts: Sequence[str], word: str = "and") -> str:
    """Return text such as `a, b and c`."""
    return f" {word} ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def capitalize(text: str) -> str:
    """Return `text` with an upper-case first letter; the rest is unchanged."""
    return f"{text[:1].upper()}{text[1:]}"


def group_name(group: str) -> str:
    """Return `multiple choice` for `multiple_choice`."""
    return group.replace("_", " ").replace("heldout", "held-out")


def verdict_text(verdict: Verdict, margin: float, unit: str, w_p_range: tuple[float, float]) -> str:
    """Return the verdict as a sentence without a full stop."""
    assert verdict.difference is not None
    assert verdict.difference_high is not None
    assert verdict.adjusted_p_value is not None
    if verdict.kind == "no effect":
        low, high = (format_w_p_as_plw(end) for end in w_p_range)
        return (
            f"no effect: between PLW {low} and {high}, scores differ by at most "
            f"{verdict.difference_high:.2g} {unit} (95%), less than the margin of {margin:g}"
        )
    if verdict.kind == "cannot say" and not verdict.has_effect:
        return (
            "cannot say: no significant difference between weights "
            f"({format_p_equation(verdict.adjusted_p_value)}); a difference of up to "
            f"{verdict.difference_high:.2g} {unit} is not ruled out"
        )
    if verdict.kind == "cannot say":
        return (
            "cannot say which PLW is best: PLW has an effect "
            f"({format_p_equation(verdict.adjusted_p_value)}), but the 95% set of the best PLW is "
            f"{format_confidence_set(verdict)}"
        )
    if verdict.kind == "tied":
        return _tied_text(verdict)
    if verdict.kind in ("rises", "falls"):
        return _range_end_text(verdict, unit, w_p_range)
    return _best_text(verdict)


def short_verdict(verdict: Verdict) -> str:
    """Return the verdict in a few words, without data and gain."""
    rate = verdict.learning_rate
    return _short_text(verdict) + (f" at learning rate {rate:g}" if rate is not None else "")


def _short_text(verdict: Verdict) -> str:
    if verdict.kind in ("no effect", "cannot say"):
        return verdict.kind
    if verdict.kind == "tied":
        return f"tied: PLW {join_words([format_tried_plw(plw) for plw in verdict.tied_plws])}"
    assert verdict.best_plw is not None
    if verdict.kind in ("rises", "falls"):
        extreme = "highest" if verdict.kind == "rises" else "lowest"
        return f"PLW {format_tried_plw(verdict.best_plw)}, the {extreme} tried"
    if verdict.method == "means":
        return f"PLW {format_tried_plw(verdict.best_plw)}"
    return f"PLW {format_plw(verdict.best_plw)} ({format_confidence_set(verdict)})"


def _interval_text(verdict: Verdict) -> str:
    """Return the confidence set of the best PLW, such as `95% interval 0.1 to 0.46`."""
    name = "interval" if len(verdict.pieces) == 1 else "set"
    return f"95% {name} {format_confidence_set(verdict)}"


def _best_text(verdict: Verdict) -> str:
    assert verdict.best_plw is not None
    assert verdict.nearest_plw is not None
    if verdict.method == "means":
        best = format_tried_plw(verdict.best_plw)
        return f"best PLW {best} of the {verdict.num_weights} tried"
    nearest = f"; nearest tried: {format_tried_plw(verdict.nearest_plw)}"
    near = nearest if verdict.nearest_plw != verdict.best_plw else ""
    return f"best PLW {format_plw(verdict.best_plw)} ({_interval_text(verdict)}{near})"


def _tied_text(verdict: Verdict) -> str:
    """Return the text for tried weights that are tied for best, and for those that are worse."""
    tied = [format_tried_plw(plw) for plw in verdict.tied_plws]
    weights = f"PLW {join_words(tied)}"
    if len(tied) > _MAX_NAMED and len(verdict.pieces) == 1:
        weights = f"the {len(tied)} weights from {tied[0]} to {tied[-1]}"
    assert verdict.best_plw is not None
    best = format_tried_plw(verdict.best_plw)
    text = f"tied for best: {weights} (no significant difference; best mean: {best})"
    worse = [format_tried_plw(plw) for plw in verdict.worse_plws]
    if not worse:
        return text
    return f"{text}; PLW {join_words(worse)} {'is' if len(worse) == 1 else 'are'} worse"


def _range_end_text(verdict: Verdict, unit: str, w_p_range: tuple[float, float]) -> str:
    """Return the text for a best weight at an end of the tried range.

    A better weight may lie beyond the end, unless the end is 0 or 1.
    """
    assert verdict.best_plw is not None
    assert verdict.difference is not None
    is_rising = verdict.kind == "rises"
    end = format_tried_plw(verdict.best_plw)
    is_open = w_p_range[1] < 1 if is_rising else w_p_range[0] > 0
    extreme = "highest" if is_rising else "lowest"
    difference = format_amount(verdict.difference, unit)
    if verdict.num_weights == 2:
        other = format_w_p_as_plw(w_p_range[0] if is_rising else w_p_range[1])
        text = f"PLW {end} is better than PLW {other} by {difference}"
        return text if is_rising else f"{text} ({_difference_interval(verdict, unit)})"
    if verdict.method == "means":
        return (
            f"best PLW {end}, the {extreme} of the {verdict.num_weights} tried; largest "
            f"difference {difference}"
        )
    start, stop = verdict.pieces[0]
    is_alone = format_plw(start) == format_plw(stop)
    bound = "" if is_alone else f" ({_interval_text(verdict)})"
    place = f", the {extreme} tried" if is_open else ""
    return (
        f"improves towards PLW {end}: best PLW {end}{place}{bound}; largest difference {difference}"
    )


def _difference_interval(verdict: Verdict, unit: str) -> str:
    """Return the interval of the difference of two weights if the lower weight is better.

    The report has no gain in that case, because gains are relative to the lower weight.
    """
    assert verdict.difference is not None
    assert verdict.difference_high is not None
    low = 2 * verdict.difference - verdict.difference_high
    ends = f"{format_number(low, unit)} to {format_number(verdict.difference_high, unit)}"
    return f"95% interval {ends}"


def too_few_trials_text(df: float) -> str:
    """Return the text for a fit with too few residual degrees of freedom."""
    return (
        f"cannot say: {_residual_degrees(df)} of freedom to estimate noise, {MIN_CURVE_DF} needed; "
        "add a second seed of each weight"
    )


def _residual_degrees(df: float) -> str:
    return "1 residual degree" if round(df) == 1 else f"{df:.0f} residual degrees"


def own_rates_text(df: float) -> str:
    """Return the text for points that are too few to separate the weights from the rates."""
    return (
        "cannot say: weights were tried at different learning rates, and these points leave "
        f"{_residual_degrees(df)} of freedom to separate the two, {MIN_CURVE_DF} needed; try all "
        "weights at one learning rate"
    )


def confounded_text() -> str:
    """Return the text for a learning rate that changed along with the weight."""
    return (
        "cannot say: the learning rate changed along with PLW, and either may cause the "
        "differences; try all weights at one learning rate"
    )


def uniform_scores_text(num_trials: int, share: float) -> str:
    """Return the text for scores that are all 0 or all 100."""
    return (
        f"cannot say: all {num_trials} trials score {share * 100:.0f}, so no difference between "
        f"weights can show; use {'harder' if share else 'easier'} benchmarks"
    )


def no_noise_text() -> str:
    """Return the text for repeated trials with identical scores.

    Identical scores may occur if scores are counts of few items.
    """
    return (
        "cannot say: repeated trials have identical scores, so noise cannot be estimated; "
        "score more items"
    )


def unfitted_text(num_weights: int, num_trials: int, num_cells: int) -> str:
    """Return the reason why nothing could be fitted."""
    if num_weights < 2:
        return f"cannot say: at least two weights with scores are needed, got {num_weights}"
    if num_weights < MIN_WEIGHTS:
        return (
            "cannot say: two weights need 2 residual degrees of freedom to estimate noise; "
            "run two seeds of each"
        )
    if num_cells > 1 and num_trials <= num_cells + 2:
        return (
            f"cannot say: {num_trials} trials have {num_cells} settings other than PLW, and "
            "almost no two differ in PLW alone"
        )
    return (
        "cannot say: no residual degrees of freedom to estimate noise; "
        "add a second seed of each weight"
    )


def assumes_curve(verdict: Verdict) -> bool:
    """Return whether the verdict assumes a parabola that could not be tested."""
    return verdict.method == "assumed curve" and verdict.adjusted_p_value is not None


def assumption_text(verdict: Verdict) -> str:
    """Return the assumption that the verdict's optimum depends on; empty if there is none."""
    if assumes_curve(verdict):
        return "assumes a parabola in w_p and equal noise; too few repeated weights to test either"
    misfit = verdict.lack_of_fit_p_value
    if verdict.kind == "no effect":
        return ""
    if verdict.method == "means" and misfit is not None and misfit < FIT_LEVEL:
        return (
            f"a parabola in w_p may not fit ({format_p_equation(misfit)}), so only tried weights "
            "are compared"
        )
    return ""


def outlier_text(outlier: Outlier, unit: str) -> str:
    """Return text such as `trial a1b2 (PLW 0.5, seed 2) is 21.3 points below the ...`."""
    name = f"trial {outlier.trial} " if outlier.trial else "the trial at "
    where = f"PLW {format_tried_plw(outlier.plw)}, seed {outlier.seed}"
    side = "above" if outlier.deviation > 0 else "below"
    return (
        f"{name}{f'({where})' if outlier.trial else where} is "
        f"{format_amount(abs(outlier.deviation), unit)} {side} the prediction from the other "
        f"trials for {group_name(outlier.group)} (p = {outlier.p_value:.1g})"
    )


def rate_notes(
    rows: Sequence[ScoreRow],
    trials: Trials,
    best_rates: Sequence[BestRate],
    interaction_p_value: float | None,
    *,
    has_own_rates: bool,
) -> Iterator[str]:
    """Yield what limits the verdicts with respect to the learning rate.

    Args:
        has_own_rates: see `Effects`, for the leading group.
        interaction_p_value: p-value of the hypothesis that the weights act equally at all rates.
    """
    rates = {row.learning_rate for row in rows}
    shared = "; models, data sets and conditions share it" if len(trials.cells) > 1 else ""
    if trials.is_confounded:
        yield "the learning rate changed along with PLW: either may cause the differences"
    elif has_own_rates:
        yield (
            "weights were tried at different learning rates: the verdicts assume a parabola in w_p "
            "and one in the logarithm of the rate, and means of single weights contain the effect "
            f"of their rates{shared}"
        )
    elif trials.learning_rate.shape[1]:
        yield (
            "the verdicts adjust for the learning rate, by a parabola in its logarithm, and means "
            f"of single weights contain the effect of their rates{shared}"
        )
    elif None in rates:
        yield "learning rates are unknown and may be confounded with PLW"
    elif len(rates) == 1 and not best_rates:
        yield (
            f"all trials had learning rate {rates.pop():g}; a weight may score worse only because "
            "it needs another one (confounded with PLW)"
        )
    elif not best_rates and len({(row.cell, row.learning_rate) for row in rows}) == len(
        trials.cells
    ):
        yield (
            "each model, data set and condition had one learning rate; a weight may score worse "
            "only because it needs another one (confounded with PLW)"
        )
    if interaction_p_value is not None and interaction_p_value < 0.05:
        yield (
            "the effect of the weight depends on the learning rate "
            f"({format_p_equation(interaction_p_value)}): each verdict holds at its own rate only"
        )
    for best in best_rates:
        prefix = f"{best.name}: " if len(best_rates) > 1 and best.name else ""
        for end, rate in (("lowest", best.tried[0]), ("highest", best.tried[-1])):
            if best.learning_rate == rate:
                yield (
                    f"{prefix}learning rate {rate:g} is the {end} with scores, so the best one may "
                    "be beyond it"
                )
        scored = {row.plw for row in rows if row.cell == best.cell}
        missing = [format_tried_plw(plw) for plw, _ in best.best_by_weight if plw not in scored]
        if missing:
            yield f"{prefix}no scores of PLW {join_words(missing)} at {best.learning_rate:g}"
        others = [
            f"{rate:g} for PLW {format_tried_plw(plw)}"
            for plw, rate in best.best_by_weight
            if rate != best.learning_rate and plw in scored
        ]
        if others:
            yield f"{prefix}highest means at another learning rate: {join_words(others)}"


def data_notes(
    rows: Sequence[ScoreRow], trials: Trials, interaction_p_value: float | None
) -> Iterator[str]:
    """Yield other properties of the data that limit the verdicts."""
    num_seeds = [
        len({trials.seed[each] for each in np.flatnonzero(trials.plw == plw)})
        for plw in np.unique(trials.plw)
    ]
    if min(num_seeds) < 2:
        yield "some weights have a single seed, so their own variance is unknown"
    num_settings = len(set(zip(trials.cell.tolist(), trials.plw.tolist(), strict=True)))
    if num_settings > MAX_SETTINGS:
        yield (
            f"{num_settings} weights are too many to compare individually (at most "
            f"{MAX_SETTINGS}): the verdict assumes a parabola in w_p and equal noise, even where "
            "weights are repeated"
        )
    if interaction_p_value is not None and interaction_p_value < 0.05:
        yield (
            "models or data sets have different curves "
            f"({format_p_equation(interaction_p_value)}): read their own verdicts before the mean"
        )
    if np.isnan(trials.values).any():
        yield "trials without scores in every group are left out of the overall verdict"
    warning = scale_warning(rows) if trials.is_share else None
    if warning is not None:
        yield warning
