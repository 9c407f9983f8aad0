"""Write sentences about a map of prompt and completion weight."""

from collections.abc import Iterator

from orchestrator.statistics.messages import (
    capitalize,
    format_amount,
    format_number,
    format_p_equation,
    join_words,
)
from orchestrator.statistics.weight_grid import GridTest, WeightGrid
from orchestrator.statistics.weight_trials import Pair
from trainers.foundation.counts import format_count

# Longer lists are shown only on the map.
_MAX_LISTED = 5


def map_sentences(
    grid: WeightGrid,
    *,
    unit: str,
    higher_is_better: bool,
    normalization: str,
    max_grad_norm: float,
) -> list[str]:
    """Return sentences on the best pair, then on the effects of the weights and their ratio."""
    found = list(_of_best(grid, unit, higher_is_better))
    if grid.noise_sd is not None:
        found += [_of_axes(grid), *_of_ratio(grid, unit, normalization, max_grad_norm)]
        found += [f"{capitalize(note)}." for note in grid.notes]
    return found


def pair_text(pair: Pair) -> str:
    """Return text such as `prompt 0.2 with completion 0.8`."""
    return f"prompt {pair[0]:g} with completion {pair[1]:g}"


def f_text(test: GridTest) -> str:
    """Return text such as `F(5, 68) = 12.3, p < 0.001`, with the corrected p-value."""
    assert test.f is not None
    assert test.adjusted_p_value is not None
    p_text = format_p_equation(test.adjusted_p_value)
    return f"F({test.freedom}, {test.freedom_noise}) = {test.f:.3g}, {p_text}"


def _of_best(grid: WeightGrid, unit: str, higher_is_better: bool) -> Iterator[str]:
    extreme = "highest" if higher_is_better else "lowest"
    pairs = f"{len(grid.cells)} pairs of prompt and completion weight"
    best = pair_text(grid.best)
    if grid.noise_sd is None:
        yield f"No conclusion about the {pairs}: {grid.notes[0]}."
        yield (
            f"{capitalize(best)} has the {extreme} mean, which is biased as the best of several. "
            "Run every pair with the same three seeds (search.seeds)."
        )
        return
    if not any(test.is_shown for test in grid.tests):
        yield (
            f"No significant difference between the {pairs} "
            f"({f_text(grid.test('any difference'))}). {capitalize(best)} has the {extreme} "
            "mean, possibly by chance."
        )
        return
    if grid.best == grid.reference:
        yield f"The reference, {best}, has the {extreme} mean of {pairs}."
    else:
        assert grid.gain_low is not None
        assert grid.gain_high is not None
        gain, low, high = (
            format_number(value, unit, signed=True)
            for value in (grid.gain, grid.gain_low, grid.gain_high)
        )
        yield (
            f"{capitalize(best)} has the {extreme} mean of {pairs}: {gain} {unit} relative to "
            f"{pair_text(grid.reference)} (95% interval {low} to {high}, corrected for selection)."
        )
    yield _others(grid)


def _others(grid: WeightGrid) -> str:
    others = [cell.pair for cell in grid.cells if cell.may_be_best and cell.pair != grid.best]
    if not others:
        return "Every other pair is significantly worse than the best (Holm, 5%)."
    if len(others) == len(grid.cells) - 1:
        return "No other pair is significantly worse than the best (Holm, 5%)."
    count = f"{format_count(len(others), 'other pair')} {'is' if len(others) == 1 else 'are'}"
    listed = "" if len(others) > _MAX_LISTED else f": {'; '.join(map(pair_text, others))}"
    return f"{count} not significantly worse than the best (Holm, 5%){listed}."


def _of_axes(grid: WeightGrid) -> str:
    named = {
        "prompt weight": "the effect of the prompt weight",
        "completion weight": "the effect of the completion weight",
        "interaction": "their interaction",
    }
    tests = [grid.test(name) for name in named]
    if all(test.f is None for test in tests):
        return "The weights never varied one at a time, so their effects cannot be separated."
    shown = [f"{named[test.name]} ({f_text(test)})" for test in tests if test.is_shown]
    not_shown = [
        f"{named[test.name]} ({f_text(test)})"
        for test in tests
        if test.f is not None and not test.is_shown
    ]
    parts = [
        *([f"Significant: {join_words(shown)}."] if shown else []),
        *([f"Not significant: {join_words(not_shown)}."] if not_shown else []),
        *(f"Not tested: {named[test.name]}: {test.reason}." for test in tests if test.f is None),
    ]
    return " ".join(parts)


def _of_ratio(
    grid: WeightGrid, unit: str, normalization: str, max_grad_norm: float
) -> Iterator[str]:
    test = grid.test("more than the ratio")
    if normalization == "weights":
        yield (
            "With loss.normalization weights a common factor of both weights cancels, so only "
            "the ratio prompt / completion can matter, regardless of the scores."
        )
        return
    if test.f is None:
        yield f"Whether only the ratio of the weights matters was not tested: {test.reason}."
        return
    assert grid.equal_ratio_difference is not None
    assert grid.equal_ratio_difference_high is not None
    if not test.is_shown:
        most = format_amount(grid.equal_ratio_difference_high, unit)
        yield (
            f"No significant effect beyond the ratio prompt / completion ({f_text(test)}): pairs "
            f"of equal ratio differ by at most {most} (95%, jointly over all such pairs)."
        )
        return
    largest = format_amount(grid.equal_ratio_difference, unit)
    yield (
        f"More than the ratio prompt / completion matters ({f_text(test)}): pairs of equal "
        f"ratio differ by up to {largest}."
    )
    if max_grad_norm > 0:
        yield (
            f"Gradients were clipped (optimizer.max_grad_norm {max_grad_norm:g}), which is one "
            "reason why a common factor of both weights can matter with AdamW."
        )
