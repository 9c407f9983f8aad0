"""The sentences of a verdict."""

from collections.abc import Sequence

import numpy as np

from orchestrator.statistics.best_weight import QuadraticFit
from orchestrator.statistics.curves import MIN_WEIGHTS, Trials, lack_of_fit
from orchestrator.statistics.table import ScoreRow, plw_of

_SMALLEST_PLW_SHOWN = 1e-4
_FEW_SEEDS = 2
_CLEAR_MISFIT = 0.01


def plw_text(w_p: float) -> str:
    """The PLW of a w_p with two digits; tiny ones as 0."""
    return plw_label(plw_of(w_p))


def plw_label(plw: float) -> str:
    """A fitted PLW with two digits; tiny ones as 0."""
    return "0" if plw < _SMALLEST_PLW_SHOWN else f"{plw:.2g}"


def pieces_text(pieces: Sequence[tuple[float, float]]) -> str:
    """Such as `0.1 to 0.46`, or `0 or 0.3 to 1`."""
    said = []
    for start, end in pieces:
        low, high = plw_text(start), plw_text(end)
        said.append(low if low == high else f"{low} to {high}")
    return " or ".join(said)


def amount(value: float, unit: str) -> str:
    """Such as `2.1 points` or `0.031 nats per token`."""
    return f"{bare_amount(value, unit)} {unit}"


def bare_amount(value: float, unit: str) -> str:
    """The number alone, with the digits that the unit deserves."""
    # So that a gain of -0.04 points does not read as -0.0.
    return f"{value:.1f}".replace("-0.0", "0.0") if unit == "points" else f"{value:.3f}"


def best_text(fit: QuadraticFit, pieces: Sequence[tuple[float, float]]) -> str:
    """Where the top is, and where it may be."""
    return f"best PLW is about {plw_text(fit.top)} (95% interval {pieces_text(pieces)})"


def rising_text(
    fit: QuadraticFit, pieces: Sequence[tuple[float, float]], difference: float, unit: str
) -> str:
    """A curve whose best tried weight is an end: beyond it may be a better one, except 0 and 1."""
    is_rising = fit.top >= fit.high
    verb = "rises towards" if is_rising else "falls from"
    end = plw_text(fit.top)
    start, stop = pieces[0]
    is_end_alone = plw_text(start) == plw_text(stop)
    bound = "" if is_end_alone else f" (95% interval {pieces_text(pieces)})"
    beyond = " the highest tried;" if is_rising and fit.high < 1 else ""
    beyond = " the lowest tried;" if not is_rising and fit.low > 0 else beyond
    return (
        f"{verb} {end}:{beyond} best PLW is {end}{bound}; {amount(difference, unit)} over the range"
    )


def nothing_text(fit: QuadraticFit, most: float, margin: float, unit: str) -> str:
    """No effect that would matter."""
    span = f"{plw_text(fit.low)} to {plw_text(fit.high)}"
    return (
        f"no effect: from PLW {span} no two weights differ by more than {most:.2g} {unit} (95%), "
        f"within the margin of {margin:g}"
    )


def unsure_text(p_value: float, most: float, unit: str) -> str:
    """Neither an effect nor its absence is shown."""
    return (
        f"cannot say: no difference between weights stands out (p = {p_value:.2g}), but one of up "
        f"to {most:.2g} {unit} is not ruled out"
    )


def open_text(pieces: Sequence[tuple[float, float]], p_value: float) -> str:
    """An effect whose best weight may be at either end."""
    return (
        f"cannot say which is best: PLW matters (p = {p_value:.2g}), but the best may be "
        f"{pieces_text(pieces)}"
    )


def few_text(freedom: float) -> str:
    """A curve goes through the scores, and too few trials are left over."""
    left = "1 trial is" if round(freedom) == 1 else f"{freedom:.0f} trials are"
    return f"cannot say: {left} left beside the curve to judge noise by, and 3 are needed"


def end_text(num_trials: int, share: float) -> str:
    """Scores that cannot tell trials apart, as where nothing is ever right."""
    return (
        f"cannot say: all {num_trials} trials score {share * 100:.0f}, where no weight can be seen "
        f"to be {'worse' if share else 'better'}; take {'harder' if share else 'easier'} benchmarks"
    )


def same_text() -> str:
    """Scores of which seeds agree, as counts of few items may."""
    return (
        "cannot say: trials lie on the curve to the last digit, as scores of few items may, which "
        "leaves no noise to judge by; score more items"
    )


def unfitted_text(num_weights: int, num_trials: int, num_cells: int) -> str:
    """Why there is no curve at all."""
    if num_weights < MIN_WEIGHTS:
        return f"cannot say: a curve needs three weights with scores, and there {_are(num_weights)}"
    if num_cells > 1 and num_trials <= num_cells + 2:
        return (
            f"cannot say: {num_trials} trials of {num_cells} settings beside PLW leave hardly two "
            "that differ in PLW alone"
        )
    return (
        "cannot say: no trial is left over to judge noise by, for which a second seed of each "
        "weight would do"
    )


def _are(count: int) -> str:
    return {0: "are none", 1: "is one"}.get(count, f"are {count}")


def notes_on(
    rows: Sequence[ScoreRow], trials: Trials, interaction_p_value: float | None
) -> list[str]:
    """What a reader must know beside the verdicts."""
    notes = []
    rates = {row.learning_rate for row in rows}
    if trials.is_confounded:
        notes.append(
            "the learning rate changed along with PLW: what is seen may be the effect of either"
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
    if min(own) < _FEW_SEEDS:
        notes.append(
            "some weights have a single seed: noise is judged by how far trials lie from the curve"
        )
    misfit = lack_of_fit(trials)
    if misfit is not None and misfit < _CLEAR_MISFIT:
        notes.append(
            f"the scores do not follow a quadratic in w_p (p = {misfit:.2g}): the interval is of "
            "the quadratic that comes closest, so try more weights around its top"
        )
    if len(trials.cells) > 1 and not trials.has_cell_curves:
        notes.append("some cells have under three weights: all cells are taken to have one curve")
    if interaction_p_value is not None and interaction_p_value < 0.05:
        notes.append(
            f"models or data sets differ in their curves (p = {interaction_p_value:.2g}): read "
            "the verdict of each before the mean"
        )
    if np.isnan(trials.values).any():
        notes.append("trials that lack a group do not count overall")
    return notes
