"""The local quadratic and the c-optimal design."""

import numpy as np
import pytest

from orchestrator.search.c_optimal import c_optimal_w_p
from orchestrator.search.local_quadratic import estimate_optimum

EVEN = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_an_exact_quadratic_gives_its_vertex() -> None:
    found = estimate_optimum(EVEN, [1 - (w_p - 0.652) ** 2 for w_p in EVEN], True)
    assert found == pytest.approx(0.652, abs=1e-6)


def test_lower_losses_are_better() -> None:
    found = estimate_optimum(EVEN, [2 + (w_p - 0.3) ** 2 for w_p in EVEN], False)
    assert found == pytest.approx(0.3, abs=1e-6)


def test_an_optimum_outside_of_the_range_is_at_its_end() -> None:
    assert estimate_optimum(EVEN, EVEN, True) == 1.0
    assert estimate_optimum(EVEN, EVEN, False) == 0.0
    assert estimate_optimum([0, 0.1, 0.2, 0.3], [0, 1, 3, 4.0], True) == 0.3


def test_a_convex_curve_gives_its_better_end() -> None:
    assert estimate_optimum(EVEN, [(w_p - 0.4) ** 2 for w_p in EVEN], True) == 1.0


def test_three_points_give_the_best_tried_one() -> None:
    assert estimate_optimum([0, 0.5, 1], [1, 3, 2], True) == 0.5


def test_no_points_or_missing_scores_are_rejected() -> None:
    with pytest.raises(ValueError, match="every point needs a score, got 0 points, 0 scores"):
        estimate_optimum([], [], True)
    with pytest.raises(ValueError, match="every point needs a score, got 2 points, 1 scores"):
        estimate_optimum([0, 1], [1], True)


def test_the_c_optimal_point_is_on_a_flank_of_the_optimum() -> None:
    next_w_p = c_optimal_w_p([0, 0.3, 0.35, 1], optimum=0.6, low=0, high=1)
    assert 0.75 < next_w_p < 1


def test_points_are_never_repeated() -> None:
    tried = [0.0, 1.0, 1 / 3, 2 / 3]
    for _ in range(20):
        tried.append(c_optimal_w_p(tried, optimum=0.5, low=0, high=1))
    gaps = np.diff(sorted(tried))
    assert gaps.min() > 0.0015
    assert min(tried) == 0
    assert max(tried) == 1
