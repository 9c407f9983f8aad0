"""A random intercept for each trial: what a score adds and what only a trial does."""

import numpy as np
import pytest

from orchestrator.statistics.mixed_model import fit_trials

W_P = np.repeat(np.linspace(0, 1, 6), 3)
CURVE = np.array([[0, 0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0, 1.0]])


def five_benchmarks(seed: int, trial_sd: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (18 trials x 5 benchmarks), their terms and their trials."""
    rng = np.random.default_rng(seed)
    curve = 0.2 * W_P - 0.3 * W_P**2 + trial_sd * rng.standard_normal(18)
    scores = curve[:, None] + 0.3 * np.arange(5) + 0.05 * rng.standard_normal((18, 5))
    repeated = np.repeat(W_P, 5)
    terms = np.column_stack([np.tile(np.eye(5), (18, 1)), repeated, repeated**2])
    return scores.ravel(), terms, np.repeat(np.arange(18), 5)


@pytest.mark.parametrize("trial_sd", [0.05, 0.0])
def test_complete_scores_give_the_regression_of_trial_means(trial_sd: float) -> None:
    y, terms, trial = five_benchmarks(0, trial_sd)
    fit = fit_trials(y, terms, trial)
    of_means = fit_trials(
        y.reshape(18, 5).mean(axis=1), np.vander(W_P, 3, increasing=True), np.arange(18)
    )
    for each in (0, 1):
        value, error, freedom = fit.estimate(CURVE[each])
        own = np.eye(3)[each + 1]
        assert value == pytest.approx(of_means.estimate(own)[0], rel=1e-5)
        assert error == pytest.approx(of_means.estimate(own)[1], rel=1e-4)
        assert freedom == pytest.approx(15, rel=1e-3)
    assert fit.f_test(CURVE)[0] == pytest.approx(of_means.f_test(np.eye(3)[1:])[0], rel=1e-3)
    assert fit.f_test(CURVE)[1] == pytest.approx(15, rel=1e-3)


def test_thirteen_scores_of_a_trial_are_no_thirteen_trials() -> None:
    y, terms, trial = five_benchmarks(1, 0.2)
    alone = fit_trials(y, terms, np.arange(90))
    together = fit_trials(y, terms, trial)
    assert together.estimate(CURVE[0])[1] > 1.8 * alone.estimate(CURVE[0])[1]
    assert 0.01 < together.trial_variance < 0.1
    assert together.residual_variance == pytest.approx(0.05**2, rel=0.4)


def test_missing_scores_cost_a_little_freedom() -> None:
    y, terms, trial = five_benchmarks(2, 0.05)
    kept = np.random.default_rng(2).random(90) < 0.8
    fit = fit_trials(y[kept], terms[kept], trial[kept])
    full = fit_trials(y, terms, trial)
    assert 11 < fit.freedom(CURVE[0]) < 18
    assert fit.estimate(CURVE[0])[0] == pytest.approx(full.estimate(CURVE[0])[0], abs=0.05)
    assert fit.f_test(CURVE)[1] == pytest.approx(15, abs=3)


def test_a_score_with_twice_the_error_counts_less() -> None:
    rng = np.random.default_rng(3)
    trial = np.repeat(np.arange(40), 2)
    errors = np.tile([0.05, 1.0], 40)
    y = np.repeat(0.1 * rng.standard_normal(40), 2) + errors * rng.standard_normal(80)
    terms = np.ones((80, 1))
    weighted = fit_trials(y, terms, trial, 1 / errors**2)
    assert (
        weighted.estimate(np.ones(1))[1]
        < 0.25 * fit_trials(y, terms, trial).estimate(np.ones(1))[1]
    )


def test_scores_that_leave_nothing_over_are_refused() -> None:
    with pytest.raises(ValueError, match="3 scores leave nothing to fit 3 terms by"):
        fit_trials(np.zeros(3), np.vander([0, 0.5, 1], 3), [0, 1, 2])
