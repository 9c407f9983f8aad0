"""Holm's correction and McNemar's test: statsmodels, and a published example."""

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from evals.results.paired import mcnemar_test
from orchestrator.statistics.holm import holm


def test_four_p_values_by_hand() -> None:
    # 4 * 0.01, then 3 * 0.02, then 2 * 0.03, then 0.5.
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])


def test_no_and_one_p_value_are_unchanged() -> None:
    assert holm([]) == []
    assert holm([0.03]) == [0.03]


@pytest.mark.parametrize("seed", range(20))
def test_holm_agrees_with_statsmodels(seed: int) -> None:
    generator = np.random.default_rng(seed)
    # Rounded, so that some are equal, 0 or 1.
    values = np.round(generator.random(1 + seed) ** 3, 1 + seed % 3).tolist()
    assert holm(values) == pytest.approx(
        multipletests(values, method="holm")[1].tolist(), rel=1e-12
    )


@pytest.mark.parametrize(
    ("only_first", "only_second"), [(0, 3), (5, 5), (20, 4), (13, 12), (40, 20), (300, 250)]
)
def test_mcnemar_agrees_with_statsmodels(only_first: int, only_second: int) -> None:
    first = [True] * only_first + [False] * only_second + [True, False] * 10
    second = [False] * only_first + [True] * only_second + [True, False] * 10
    table = [[10, only_first], [only_second, 10]]
    expected = mcnemar(table, exact=only_first + only_second < 25, correction=False).pvalue
    assert mcnemar_test(first, second).p_value == pytest.approx(float(expected), rel=1e-12)
