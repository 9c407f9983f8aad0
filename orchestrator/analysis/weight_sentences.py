"""What a map of prompt and completion weight shows, in sentences."""

from collections.abc import Iterator, Sequence

from orchestrator.statistics.weight_grid import GridTest, WeightGrid
from orchestrator.statistics.weight_trials import Pair

_SMALL_P = 0.001
# Longer lists nobody reads; the map marks all of them.
_MAX_LISTED = 5


def map_sentences(
    grid: WeightGrid,
    *,
    unit: str,
    higher_is_better: bool,
    normalization: str,
    max_grad_norm: float,
) -> list[str]:
    """The best pair, what scores depend on, and whether only the ratio matters, the first first."""
    found = list(_of_best(grid, unit, higher_is_better))
    if grid.noise_sd is not None:
        found += [_of_axes(grid), *_of_ratio(grid, unit, normalization, max_grad_norm)]
        found += [f"{note[0].upper()}{note[1:]}." for note in grid.notes]
    return found


def pair_text(pair: Pair) -> str:
    """Such as `prompt 0.2 with completion 0.8`."""
    return f"prompt {pair[0]:g} with completion {pair[1]:g}"


def amount_text(value: float, unit: str, *, signed: bool = True) -> str:
    """Such as `+1.2`, with three decimals where the unit is not points."""
    digits = 1 if unit == "points" else 3
    # Adding 0.0 makes a rounded -0.0 a 0.0.
    return f"{round(value, digits) + 0.0:{'+' if signed else ''}.{digits}f}"


def f_text(test: GridTest) -> str:
    """Such as `F(5, 68) = 12.3, p < 0.001`, with the corrected p-value."""
    assert test.f is not None
    assert test.adjusted_p_value is not None
    p_value = test.adjusted_p_value
    p_text = f"p < {_SMALL_P:g}" if p_value < _SMALL_P else f"p = {p_value:.2g}"
    return f"F({test.freedom}, {test.freedom_noise}) = {test.f:.3g}, {p_text}"


def _of_best(grid: WeightGrid, unit: str, higher_is_better: bool) -> Iterator[str]:
    extreme = "highest" if higher_is_better else "lowest"
    pairs = f"{len(grid.cells)} pairs of prompt and completion weight"
    best = pair_text(grid.best)
    if grid.noise_sd is None:
        yield f"Nothing can be concluded about the {pairs}: {grid.notes[0]}."
        yield (
            f"The {extreme} mean is that of {best}; as the best of several it is partly luck. Run "
            "every pair with the same three seeds (search.seeds)."
        )
        return
    if not any(test.is_shown for test in grid.tests):
        yield (
            f"No difference between the {pairs} is shown "
            f"({f_text(grid.test('any difference'))}). The {extreme} mean, that of {best}, may "
            "be luck."
        )
        return
    if grid.best == grid.reference:
        yield f"Of {pairs}, the reference, {best}, has the {extreme} mean."
    else:
        assert grid.gain_low is not None
        assert grid.gain_high is not None
        low, high = amount_text(grid.gain_low, unit), amount_text(grid.gain_high, unit)
        yield (
            f"Of {pairs}, {best} has the {extreme} mean: {amount_text(grid.gain, unit)} {unit} from"
            f" {pair_text(grid.reference)} (95% interval {low} to {high}, which holds for "
            "whichever pair is best)."
        )
    yield _others(grid)


def _others(grid: WeightGrid) -> str:
    others = [cell.pair for cell in grid.cells if cell.may_be_best and cell.pair != grid.best]
    if not others:
        return "Every other pair is significantly worse than the best (Holm, 5%)."
    if len(others) == len(grid.cells) - 1:
        return "No other pair is significantly worse than the best (Holm, 5%)."
    count = f"{len(others)} other pair{' is' if len(others) == 1 else 's are'}"
    listed = "" if len(others) > _MAX_LISTED else f": {'; '.join(map(pair_text, others))}"
    return f"{count} not significantly worse than the best (Holm, 5%){listed}."


def _of_axes(grid: WeightGrid) -> str:
    named = {
        "prompt weight": "an effect of the prompt weight",
        "completion weight": "an effect of the completion weight",
        "interaction": "an interaction of the two",
    }
    tests = [grid.test(name) for name in named]
    if all(test.f is None for test in tests):
        return "The weights never varied one at a time, so that their effects cannot be separated."
    shown = [f"{named[test.name]} ({f_text(test)})" for test in tests if test.is_shown]
    not_shown = [
        f"{named[test.name]} ({f_text(test)})"
        for test in tests
        if test.f is not None and not test.is_shown
    ]
    parts = [
        *([f"Shown: {_listed(shown, 'and')}."] if shown else []),
        *([f"Not shown: {_listed(not_shown, 'or')}."] if not_shown else []),
        *(f"Not tested: {named[test.name]}: {test.reason}." for test in tests if test.f is None),
    ]
    return " ".join(parts)


def _listed(parts: Sequence[str], word: str) -> str:
    return f" {word} ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _of_ratio(
    grid: WeightGrid, unit: str, normalization: str, max_grad_norm: float
) -> Iterator[str]:
    test = grid.test("more than the ratio")
    if normalization == "weights":
        yield (
            "Under loss.normalization weights a common factor of both weights cancels, so that "
            "only the ratio prompt / completion can matter, whatever the scores say."
        )
        return
    if test.f is None:
        yield f"Whether only the ratio of the weights matters was not tested: {test.reason}."
        return
    assert grid.equal_ratio_difference is not None
    assert grid.equal_ratio_difference_high is not None
    largest = amount_text(grid.equal_ratio_difference, unit, signed=False)
    if not test.is_shown:
        most = amount_text(grid.equal_ratio_difference_high, unit, signed=False)
        yield (
            f"Nothing shows that more than the ratio prompt / completion matters "
            f"({f_text(test)}): pairs of equal ratio differ by at most {most} {unit} (95%, all "
            "of them together)."
        )
        return
    yield (
        f"More than the ratio prompt / completion matters ({f_text(test)}): pairs of equal "
        f"ratio differ by up to {largest} {unit}."
    )
    if max_grad_norm > 0:
        yield (
            f"Gradients were clipped (optimizer.max_grad_norm {max_grad_norm:g}), one reason why a "
            "common factor of both weights can matter under AdamW."
        )
