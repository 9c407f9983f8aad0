"""The rule that turns scores at several weights into a place to look around."""

import numpy as np
import pytest

from orchestrator.search.narrow import narrowing_w_p
from orchestrator.search.top import search_top

EVEN = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_an_exact_quadratic_gives_its_top() -> None:
    found = search_top(EVEN, [1 - (w_p - 0.652) ** 2 for w_p in EVEN], True)
    assert found.w_p == pytest.approx(0.652, abs=1e-6)
    assert found.plw == pytest.approx(0.2416, abs=1e-4)
    assert found.method == "local quadratic"


def test_a_loss_is_turned_around() -> None:
    found = search_top(EVEN, [2 + (w_p - 0.3) ** 2 for w_p in EVEN], False)
    assert found.w_p == pytest.approx(0.3, abs=1e-6)


def test_a_top_beyond_the_tried_points_is_at_the_last_of_them() -> None:
    assert search_top(EVEN, EVEN, True).w_p == 1.0
    assert search_top(EVEN, EVEN, False).w_p == 0.0
    assert search_top([0, 0.1, 0.2, 0.3], [0, 1, 3, 4.0], True).w_p == 0.3


def test_a_valley_gives_its_higher_end() -> None:
    assert search_top(EVEN, [(w_p - 0.4) ** 2 for w_p in EVEN], True).w_p == 1.0


def test_three_points_give_the_best_of_them() -> None:
    found = search_top([0, 0.5, 1], [1, 3, 2], True)
    assert (found.w_p, found.plw, found.method) == (0.5, pytest.approx(0.1), "best tried")


def test_no_points_or_unequal_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="a score for each point, got 0 and 0"):
        search_top([], [], True)
    with pytest.raises(ValueError, match="a score for each point, got 2 and 1"):
        search_top([0, 1], [1], True)


def test_the_next_point_stands_on_a_flank_of_the_top() -> None:
    next_w_p = narrowing_w_p([0, 0.3, 0.35, 1], top=0.6, low=0, high=1)
    assert 0.75 < next_w_p < 1


def test_no_point_is_proposed_twice() -> None:
    tried = [0.0, 1.0, 1 / 3, 2 / 3]
    for _ in range(20):
        tried.append(narrowing_w_p(tried, top=0.5, low=0, high=1))
    gaps = np.diff(sorted(tried))
    assert gaps.min() > 0.0015
    assert min(tried) == 0
    assert max(tried) == 1
