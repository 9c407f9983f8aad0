"""The confidence set of the best weight, compared with brute force and on simple curves."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from orchestrator.statistics.confidence_set import (
    Pieces,
    confidence_set,
    may_be_best,
    significantly_worse,
)
from orchestrator.statistics.estimates import Estimates
from tests.orchestrator.statistics.scores import (
    PLWS,
    SIX,
    analysed,
    grid,
    make_rows,
    rows_at,
    w_p,
)

Array = NDArray[np.float64]
NUM_PLACES = 1001


def t_limit(parts: Array, df: Array, total_df: float, level: float) -> Array:
    """Return the standard error times Student's quantile with Satterthwaite's df, written out.

    `parts` (..., K): variance from each noise group with `df` (K).
    """
    variance = parts.sum(axis=-1)
    own = variance**2 / (parts**2 / df).sum(axis=-1)
    limit = stats.t.ppf(level, np.clip(own, 1.0, total_df)) * np.sqrt(variance)
    return np.asarray(limit, dtype=np.float64)


def has_better_place(curve: Estimates, start: float, places: Array) -> bool:
    """Whether the curve rises significantly from `start` to any of `places`."""
    ends = places[places != start]
    slope, curvature = ends - start, ends**2 - start**2
    # (ends, T): what each trial adds to the rise.
    added = np.outer(slope, curve.linear[0]) + np.outer(curvature, curve.linear[1])
    noise = curve.noise
    parts = np.stack(
        [
            variance * (added[:, noise.group == number] ** 2).sum(axis=1)
            for number, variance in enumerate(noise.variance)
        ],
        axis=-1,
    )
    rise = slope * curve.values[0] + curvature * curve.values[1]
    return bool((rise > t_limit(parts, noise.df, noise.total_df, 0.975)).any())


def is_in(pieces: Pieces, place: float) -> bool:
    return any(low - 1e-9 <= place <= high + 1e-9 for low, high in pieces)


@pytest.mark.parametrize(
    "curve",
    [
        lambda at: -8 * (at - 0.6) ** 2,
        lambda at: 2.0 * at,
        lambda at: 6 * (at - 0.5) ** 2,
        lambda at: 0.0,
    ],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_set_of_a_curve_equals_a_search_over_all_pairs(
    curve: Callable[[float], float], seeds: int
) -> None:
    plws = PLWS if seeds > 1 else (*PLWS, 0.002, 0.8)
    found = analysed(make_rows(curve, plws=plws, seeds=seeds, trial_sd=0.5, seed=2))
    assert found.curve is not None
    # The curve's set alone, without tried weights near the best mean.
    alone = replace(found, means=None, pairs=None)
    pieces = confidence_set(alone)
    places = np.linspace(found.low, found.high, NUM_PLACES)
    checked = places[::40]
    edges = np.array([each for piece in pieces for each in piece])
    for place in checked:
        if np.abs(edges - place).min() < 2e-3 or abs(place - found.optimum) < 1e-3:
            continue
        assert is_in(pieces, place) == (not has_better_place(found.curve, place, places)), place


@pytest.mark.parametrize("seed", [1, 2, 4, 5])
def test_set_of_means_equals_a_search_over_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = (
        np.array([0.0, 1, 3, 3.5, 1, -1])[:, None]
        + rng.standard_normal((6, 4)) * (np.array([1, 1, 1, 3, 1, 0.5])[:, None])
    )
    # Unshared seeds: no blocks, and each variance can be computed by hand.
    points = {
        (plw, f"{plw}-{number}"): float(value)
        for plw, own in zip(SIX, values, strict=True)
        for number, value in enumerate(own)
    }
    found = analysed(rows_at(points))
    variances = values.var(axis=1, ddof=1)
    own = np.maximum(variances, 0.1 * variances.mean())
    shrunk = (3 * own + 2 * variances.mean()) / 5 / 4

    def is_beaten(mine: int, level: float) -> bool:
        beaten = False
        for other in range(6):
            if other != mine:
                limit = t_limit(shrunk[[mine, other]], np.array([5.0, 5.0]), 18, level)
                beaten |= values[other].mean() - values[mine].mean() > limit
        return beaten

    assert found.pairs is not None
    # 5 comparisons with the other weights; 5 * 4 pairs of weights that may share the best.
    expected = [not is_beaten(mine, 1 - 0.05 / 5) for mine in range(6)]
    assert may_be_best(found.pairs).tolist() == expected
    assert not all(expected)
    worse = [is_beaten(mine, 1 - 0.05 / 20) for mine in range(6)]
    assert significantly_worse(found.pairs).tolist() == worse
    assert any(worse)


def get_pieces(curve: Callable[[float], float], **changes: object) -> tuple[str, Pieces]:
    found = analysed(make_rows(curve, **changes))
    return found.method, confidence_set(found)


def test_hill_has_one_interval_around_its_maximum() -> None:
    method, ((low, high),) = get_pieces(lambda at: -12 * (at - 0.6) ** 2, trial_sd=0.2, seed=1)
    assert method == "curve"
    assert 0.4 < low < 0.6 < high < 0.72


def test_rising_curve_has_the_upper_end() -> None:
    method, ((low, high),) = get_pieces(lambda at: 4 * at, trial_sd=0.2, seed=1)
    assert method == "curve"
    assert 0.8 < low <= high == 1.0


def test_valley_has_both_ends() -> None:
    method, (first, second) = get_pieces(lambda at: 12 * (at - 0.5) ** 2, trial_sd=0.2, seed=1)
    assert method == "curve"
    assert first[0] == 0.0
    assert first[1] < 0.1
    assert second[0] > 0.9
    assert second[1] == 1.0


def test_flat_curve_has_the_whole_range() -> None:
    assert get_pieces(lambda at: 0.0, trial_sd=0.5, seed=3)[1] == ((0.0, 1.0),)


def test_falling_curve_without_repeated_weights_has_the_lower_end() -> None:
    plws = (*PLWS, 0.002, 0.02, 0.15, 0.35, 0.75)
    method, ((low, high),) = get_pieces(lambda at: -4 * at, plws=plws, seeds=1, trial_sd=0.1)
    assert method == "assumed curve"
    assert low == 0.0
    assert high < 0.2


def test_rise_linear_in_plw_includes_1_and_excludes_0() -> None:
    """In w_p the curve has a flat bottom: 0 is no better than the middle, and 1 is better than
    both.
    """
    named = 0
    for seed in range(20):
        rows = make_rows(lambda at: 3 * at**3.3219, plws=SIX, trial_sd=0.5, seed=seed)
        pieces = confidence_set(analysed(rows))
        assert pieces[-1][1] == 1.0
        named += pieces[0][0] > 0
    assert named >= 19


def test_end_is_excluded_only_if_another_weight_is_significantly_better() -> None:
    level = grid([[0.0, 1, 2], [0.2, 0.9, 2.1], [-0.1, 1.2, 1.9], [0.1, 1, 2.2]],
                 (0.0, 0.1, 0.5, 1.0))  # fmt: skip
    assert is_in(confidence_set(analysed(rows_at(level))), 0.0)
    assert is_in(confidence_set(analysed(rows_at(level))), 1.0)
    worse = {key: value - 5 * (key[0] == 0.0) for key, value in level.items()}
    assert confidence_set(analysed(rows_at(worse)))[0][0] > 0
    assert is_in(confidence_set(analysed(rows_at(worse))), 1.0)


def test_sharp_peak_is_a_single_weight() -> None:
    peak = {(plw, str(seed)): (6.0 if plw == 0.01 else 0.0) + 0.2 * seed + 0.1 * ((index * 7) % 5)
            for index, plw in enumerate(SIX) for seed in range(3)}  # fmt: skip
    peak = {key: value + 0.05 * np.sin(17 * index) for index, (key, value) in
            enumerate(peak.items())}  # fmt: skip
    found = analysed(rows_at(peak))
    assert found.method == "means"
    assert confidence_set(found) == ((w_p(0.01), w_p(0.01)),)


@pytest.mark.parametrize(("noise", "is_kept"), [(0.1, False), (2.0, True)])
def test_lower_mean_with_large_noise_stays_in_the_set(noise: float, is_kept: bool) -> None:
    steady = np.array([[-0.1, 0, 0.1, 0], [0, 0.1, -0.1, 0], [1, 1.1, 0.9, 1]])
    own = 0.2 + noise * np.array([-1.0, 0, 1, 0])
    points = {
        (plw, f"{plw}-{number}"): float(value)
        for plw, values in zip((0.0, 0.01, 0.1, 1.0), [*steady, own], strict=True)
        for number, value in enumerate(values)
    }
    found = analysed(rows_at(points))
    assert found.pairs is not None
    assert may_be_best(found.pairs)[2:].tolist() == [True, is_kept]


NOISE = st.lists(st.floats(-3, 3), min_size=18, max_size=18)


@given(noise=NOISE, slope=st.floats(-5, 5), curvature=st.floats(-20, 20))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_set_is_ascending_and_contains_the_optimum(
    noise: list[float], slope: float, curvature: float
) -> None:
    truth = [slope * w_p(plw) + curvature * w_p(plw) ** 2 for plw in SIX]
    values = np.array(truth)[:, None] + np.reshape(noise, (6, 3))
    found = analysed(rows_at(grid(values.tolist(), SIX)))
    pieces = confidence_set(found)
    assert pieces
    ends = [each for piece in pieces for each in piece]
    assert ends == sorted(ends)
    assert (found.low, found.high) == (0.0, 1.0)
    assert ends[0] >= 0.0
    assert ends[-1] <= 1.0
    within_a_step = [low - 1e-3 <= found.optimum <= high + 1e-3 for low, high in pieces]
    assert any(within_a_step)


@given(noise=NOISE, shift=st.floats(-20, 20), of_seed=st.lists(st.floats(-5, 5), min_size=3,
                                                               max_size=3))  # fmt: skip
@settings(max_examples=40, deadline=None, derandomize=True)
def test_common_shift_of_all_weights_changes_nothing(
    noise: list[float], shift: float, of_seed: list[float]
) -> None:
    values = np.reshape(noise, (6, 3)) + np.array([0.0, 1, 2, 3, 2, 1])[:, None]
    first = analysed(rows_at(grid(values.tolist(), SIX)))
    moved = values + shift + np.array(of_seed)
    second = analysed(rows_at(grid(moved.tolist(), SIX)))
    if min(abs((one.lack_of_fit or 0) - 0.2) for one in (first, second)) < 1e-6:
        return
    assert second.p_value == pytest.approx(first.p_value, rel=1e-6, abs=1e-12)
    assert np.ravel(confidence_set(second)) == pytest.approx(
        np.ravel(confidence_set(first)), abs=2.1e-3
    )


@given(noise=NOISE, factor=st.floats(0.1, 3))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_set_does_not_depend_on_the_unit_of_scores(noise: list[float], factor: float) -> None:
    values = np.reshape(noise, (6, 3)) + np.array([0.0, 1, 2, 3, 2, 1])[:, None]
    first = analysed(rows_at(grid(values.tolist(), SIX)))
    second = analysed(rows_at(grid((values * factor).tolist(), SIX)))
    if abs((first.lack_of_fit or 0) - 0.2) < 1e-6:
        return
    assert second.p_value == pytest.approx(first.p_value, rel=1e-6, abs=1e-12)
    assert np.ravel(confidence_set(second)) == pytest.approx(
        np.ravel(confidence_set(first)), abs=2.1e-3
    )
