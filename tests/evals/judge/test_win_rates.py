"""Win rates and length control against direct computations."""

import numpy as np
import pytest
from scipy.optimize import minimize

from evals.judge.win_rates import length_adjusted_win_rate, win_rate


def test_a_win_rate_is_the_mean_with_ties_as_halves() -> None:
    estimate = win_rate([1, 1, 0.5, 0], seed=0)
    assert estimate.value == 0.625
    assert estimate.num_items == 4
    assert estimate.ci_low is not None
    assert estimate.ci_high is not None
    assert 0 <= estimate.ci_low < 0.625 < estimate.ci_high <= 1
    assert win_rate([1, 1, 0.5, 0], seed=0) == estimate


def test_the_interval_matches_the_normal_approximation() -> None:
    values = [1.0] * 300 + [0.5] * 100 + [0.0] * 400
    estimate = win_rate(values, seed=3)
    error = np.std(values, ddof=1) / np.sqrt(800)
    assert estimate.standard_error == pytest.approx(error, rel=0.06)
    assert estimate.ci_low == pytest.approx(estimate.value - 1.96 * error, abs=0.004)


def biased_verdicts(n: int, *, advantage: float, length_effect: float) -> tuple[list[float], ...]:
    """Return verdicts of a judge with a length bias, and the lengths of both outputs."""
    draw = np.random.default_rng(1)
    candidate, reference = draw.integers(20, 900, n), draw.integers(20, 700, n)
    difference = candidate - reference
    tanh = np.tanh(difference / difference.std(ddof=1))
    chance = 1 / (1 + np.exp(-(advantage + length_effect * tanh)))
    values = (draw.random(n) < chance).astype(float)
    return values.tolist(), candidate.tolist(), reference.tolist()


def test_length_control_finds_the_rate_at_equal_length() -> None:
    values, candidate, reference = biased_verdicts(4000, advantage=-0.4, length_effect=2.5)
    estimate = length_adjusted_win_rate(values, candidate, reference, seed=0)
    assert estimate is not None
    assert np.mean(values) > 0.47
    assert estimate.value == pytest.approx(1 / (1 + np.exp(0.4)), abs=0.02)
    assert estimate.ci_low is not None
    assert estimate.ci_high is not None
    assert estimate.ci_low < estimate.value < estimate.ci_high


def test_length_control_matches_a_penalised_logistic_regression() -> None:
    values, candidate, reference = biased_verdicts(60, advantage=0.3, length_effect=1.0)
    values[:10] = [0.5, 0.75, 0.25, 0.5, 0.5, 1.0, 0.5, 0.75, 0.5, 0.0]
    difference = np.subtract(candidate, reference).astype(float)
    longer = np.tanh(difference / difference.std(ddof=1))

    def loss(parameters: np.ndarray) -> float:
        odds = parameters[0] + parameters[1] * longer
        return float(np.sum(np.logaddexp(0, odds) - values * odds) + 0.005 * parameters[1] ** 2)

    fitted = minimize(loss, [0.0, 0.0], method="BFGS", options={"gtol": 1e-9}).x
    estimate = length_adjusted_win_rate(values, candidate, reference, seed=0)
    assert estimate is not None
    assert estimate.value == pytest.approx(1 / (1 + np.exp(-fitted[0])), abs=1e-6)


def test_length_control_needs_20_pairs_and_different_lengths() -> None:
    assert length_adjusted_win_rate([1.0, 0.0] * 9, [5, 6] * 9, [6, 9] * 9, seed=0) is None
    assert length_adjusted_win_rate([1.0, 0.0] * 20, [5] * 40, [3] * 40, seed=0) is None


def test_length_control_stays_finite_if_longer_always_wins() -> None:
    values = [1.0] * 15 + [0.0] * 15
    candidate, reference = [10] * 15 + [1] * 15, [1] * 15 + [10] * 15
    estimate = length_adjusted_win_rate(values, candidate, reference, seed=0)
    assert estimate is not None
    assert estimate.value == pytest.approx(0.5, abs=1e-9)


def test_length_control_of_a_candidate_that_always_wins_is_one() -> None:
    estimate = length_adjusted_win_rate([1.0] * 30, list(range(30)), [3] * 30, seed=0)
    assert estimate is not None
    assert (estimate.value, estimate.ci_low, estimate.ci_high) == (1.0, None, None)
