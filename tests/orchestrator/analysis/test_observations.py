"""Trial values as points with intervals."""

import pytest

from orchestrator.analysis.observations import TrialValue, mean_over_seeds
from tests.orchestrator.sweeps import trial


def values(*found: float, error: float | None = 5.0) -> list[TrialValue]:
    return [
        TrialValue(trial=trial(0.1, seed=seed), value=value, error=error, num_items=64)
        for seed, value in enumerate(found)
    ]


def test_seeds_are_averaged_with_a_student_t_interval() -> None:
    estimate = mean_over_seeds(values(70, 74, 78))
    # mean 74, standard deviation 4, t(0.975, 2) = 4.302653, half width 4.302653 * 4 / 3**.5
    assert estimate.value == pytest.approx(74)
    assert estimate.ci_low == pytest.approx(74 - 9.93655, abs=1e-4)
    assert estimate.ci_high == pytest.approx(74 + 9.93655, abs=1e-4)
    assert estimate.interval == "seeds"


def test_one_seed_has_the_interval_of_its_items() -> None:
    estimate = mean_over_seeds(values(70))
    assert (estimate.ci_low, estimate.ci_high) == (
        pytest.approx(70 - 9.79982, abs=1e-4),
        pytest.approx(70 + 9.79982, abs=1e-4),
    )
    assert estimate.interval == "items"


def test_identical_seeds_keep_the_interval_over_items() -> None:
    estimate = mean_over_seeds(values(75, 75))
    assert estimate.ci_low == pytest.approx(75 - 9.79982, abs=1e-4)
    assert estimate.interval == "items"


def test_single_seed_without_item_error_has_no_interval() -> None:
    estimate = mean_over_seeds(values(70, error=None))
    assert (estimate.ci_low, estimate.interval) == (None, None)


def test_interval_of_two_seeds_is_clipped_to_the_bounds() -> None:
    estimate = mean_over_seeds(values(90, 80), (0.0, 100.0))
    # t(0.975, 1) = 12.706205, half width 12.706205 * 7.07107 / 2**.5 = 63.531
    assert estimate.ci_low == pytest.approx(85 - 63.53102, abs=1e-3)
    assert estimate.ci_high == 100.0
