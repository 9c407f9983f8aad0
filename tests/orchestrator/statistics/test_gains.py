"""The gain of a chosen weight, free of the luck that it was chosen by."""

import numpy as np
import pytest

from orchestrator.statistics.best_weight import QuadraticFit
from orchestrator.statistics.gains import corrected_gain
from tests.orchestrator.statistics.test_best_weight import KNOWN


def studies(slope: float, curvature: float, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Errors of the corrected and the naive gain over many studies, and the intervals' coverage."""
    rng = np.random.default_rng(11)
    errors, held = [], 0
    for _ in range(count):
        found = rng.multivariate_normal([slope, curvature], KNOWN)
        covariance = KNOWN * rng.chisquare(15) / 15
        gain = corrected_gain(
            QuadraticFit(slope=found[0], curvature=found[1], covariance=covariance, freedom=15,
                         low=0.0, high=1.0),
            0.0,
        )  # fmt: skip
        truth = slope * gain.w_p + curvature * gain.w_p**2
        errors.append((gain.value - truth, gain.naive - truth))
        held += gain.low <= truth <= gain.high
    return *np.array(errors).T, held / count


@pytest.mark.parametrize(("slope", "curvature"), [(0.0, 0.0), (1.5, -1.5), (6.0, -5.0)])
def test_the_reported_gain_has_no_bias_that_its_noise_would_not_explain(
    slope: float, curvature: float
) -> None:
    corrected, naive, coverage = studies(slope, curvature, 1000)
    noise = corrected.std() / 1000**0.5
    assert abs(corrected.mean()) < 3 * noise
    assert naive.mean() > 3 * naive.std() / 1000**0.5
    assert abs(corrected.mean()) < 0.35 * naive.mean()
    assert coverage >= 0.945


def test_choosing_the_reference_gains_nothing() -> None:
    fit = QuadraticFit(slope=-4.0, curvature=-1.0, covariance=0.0001 * KNOWN, freedom=15,
                       low=0.0, high=1.0)  # fmt: skip
    gain = corrected_gain(fit, 0.0)
    assert (gain.w_p, gain.naive, gain.low, gain.high) == (0.0, 0, 0, 0)
    assert gain.value == 0
