"""The paper's model, against what R's glmmTMB 1.1.5 gives for the same file."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from orchestrator.statistics.beta_glmm import _Laplace, fit_beta_glmm
from trainers.errors import InputError

REFERENCE = Path(__file__).parent / "beta_glmm_simulated.csv"


def reference() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.genfromtxt(REFERENCE, delimiter=",", names=True)
    terms = np.column_stack([np.ones(len(table)), table["w"], table["w2"]])
    return table["y"], terms, table["bench"].astype(np.int64)


def test_the_reference_file_gives_what_glmmtmb_gives() -> None:
    y, terms, benchmark = reference()
    fit = fit_beta_glmm(y, terms, [benchmark])
    assert fit.converged
    assert fit.coefficients == pytest.approx([-0.4783, 1.3603, -1.2646], abs=1e-4)
    assert fit.standard_errors[1:] == pytest.approx([0.1383, 0.1340], abs=1e-4)
    assert fit.precision == pytest.approx(82.43, abs=0.01)
    assert fit.random_sds == pytest.approx([0.7387], abs=1e-4)
    assert fit.log_likelihood == pytest.approx(571.930, abs=1e-3)


def test_the_gradient_is_that_of_the_likelihood_with_crossed_intercepts() -> None:
    y, terms, benchmark = reference()
    trial = np.arange(len(y)) % 30
    objective = _Laplace(y, terms, [benchmark, trial])
    at = np.array([-0.3, 1.0, -1.0, 4.0, -0.4, -1.0])
    numeric = approx_fprime(at, lambda point: objective(point)[0], 1e-6)
    assert objective(at)[1] == pytest.approx(numeric, rel=1e-4, abs=1e-3)


def test_an_intercept_that_explains_nothing_gets_no_spread_and_changes_nothing() -> None:
    y, terms, benchmark = reference()
    fit = fit_beta_glmm(y, terms, [benchmark, np.arange(len(y)) % 30])
    assert fit.converged
    assert fit.random_sds[1] < 0.05
    assert fit.coefficients == pytest.approx([-0.4783, 1.3603, -1.2646], abs=2e-3)


def test_without_random_intercepts_it_is_plain_beta_regression() -> None:
    rng = np.random.default_rng(0)
    x = rng.random(4000)
    mean = 1 / (1 + np.exp(-(0.2 + 0.7 * x)))
    y = rng.beta(mean * 50, (1 - mean) * 50)
    fit = fit_beta_glmm(y, np.column_stack([np.ones_like(x), x]))
    assert fit.coefficients == pytest.approx([0.2, 0.7], abs=0.05)
    assert fit.precision == pytest.approx(50, rel=0.1)
    assert fit.p_values[1] < 1e-6


def test_scores_of_0_and_terms_that_repeat_are_refused() -> None:
    y, terms, _ = reference()
    with pytest.raises(InputError, match=r"inside \(0, 1\), got 0"):
        fit_beta_glmm(np.append(y[1:], 0.0), terms)
    with pytest.raises(InputError, match="cannot tell 4 fixed terms apart"):
        fit_beta_glmm(y, np.column_stack([terms, terms[:, 1]]))
