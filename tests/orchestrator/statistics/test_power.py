"""Power, compared with noncentral distributions and an independent simulation."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from orchestrator.statistics.power import Power, required_seeds, simulate_power
from tests.orchestrator.statistics.scores import SIX, w_p
from trainers.foundation.errors import InputError

Array = NDArray[np.float64]

NUM = 200
# Three times the standard error of a share of 200 studies, at its largest.
MONTE_CARLO = 3 * 0.5 / NUM**0.5


def hill(plws: tuple[float, ...], effect: float, best_w_p: float) -> Array:
    """Return a parabola in w_p with its maximum at `best_w_p` and `effect` points from best to
    worst.
    """
    shape = -((np.array([w_p(plw) for plw in plws]) - best_w_p) ** 2)
    return effect * shape / (shape.max() - shape.min())


def noncentral_power(first: int, second: int, centrality: float) -> float:
    limit = stats.f.ppf(0.95, first, second)
    return float(stats.ncf.sf(limit, first, second, centrality))


@pytest.mark.parametrize("trial_sd", [0.8, 1.5])
def test_single_seeds_have_the_power_of_the_f_test_of_the_curve(trial_sd: float) -> None:
    plws = (0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
    found = simulate_power(plws=plws, seeds=1, effect=3, trial_sd=trial_sd, num_studies=NUM)
    curve = hill(plws, 3, 0.652)
    centrality = ((curve - curve.mean()) ** 2).sum() / trial_sd**2
    expected = noncentral_power(2, len(plws) - 3, centrality)
    assert found.power == pytest.approx(expected, abs=MONTE_CARLO)
    assert 0.2 < found.power < 0.99


def test_two_weights_have_the_power_of_the_paired_t_test() -> None:
    found = simulate_power(plws=(0, 0.1), seeds=5, effect=1.5, trial_sd=1, num_studies=NUM)
    expected = noncentral_power(1, 4, 5 * 1.5**2 / 2)
    assert found.power == pytest.approx(expected, abs=MONTE_CARLO)
    assert found.names == found.power


def brown_forsythe_power(curve: Array, seeds: int, trial_sd: float, num_studies: int) -> float:
    """F* on seed-centred values by its formula, written out for a complete design."""
    rng = np.random.default_rng(99)
    num = len(curve)
    values = curve[:, None] + trial_sd * rng.standard_normal((num_studies, num, seeds))
    values -= values.mean(axis=1, keepdims=True)
    means = values.mean(axis=2)
    df = (1 - 1 / num) * (seeds - 1)
    variance = ((values - means[:, :, None]) ** 2).sum(axis=2) / df
    variance = np.maximum(variance, 0.1 * variance.mean(axis=1, keepdims=True))
    scaled = (1 - 1 / num) * variance
    statistic = seeds * (means**2).sum(axis=1) / scaled.sum(axis=1)
    kept = 1 - 2 / (df + 2)
    upper = scaled.sum(axis=1) ** 2 - (1 - kept) * (scaled**2).sum(axis=1)
    pairs = variance.sum(axis=1) ** 2 - (variance**2).sum(axis=1)
    lower = kept * (scaled**2).sum(axis=1) + pairs / num**2
    first = np.clip(upper / lower, 1, num - 1)
    second = np.clip(
        scaled.sum(axis=1) ** 2 / (scaled**2 / df).sum(axis=1), 1, (num - 1) * (seeds - 1)
    )
    return float((stats.f.sf(statistic, first, second) < 0.05).mean())


@pytest.mark.parametrize(("seeds", "trial_sd"), [(3, 0.7), (5, 1.0)])
def test_repeated_weights_have_the_power_of_f_star(seeds: int, trial_sd: float) -> None:
    found = simulate_power(plws=SIX, seeds=seeds, effect=2, trial_sd=trial_sd, num_studies=NUM)
    curve = hill(SIX, 2, 0.652)
    assert found.power == pytest.approx(
        brown_forsythe_power(curve, seeds, trial_sd, 20_000), abs=MONTE_CARLO
    )
    centrality = seeds * ((curve - curve.mean()) ** 2).sum() / trial_sd**2
    classical = noncentral_power(5, 5 * (seeds - 1), centrality)
    # The cost of not assuming equal variances.
    assert classical - 0.15 - MONTE_CARLO < found.power < classical + MONTE_CARLO


def power(**changes: float) -> Power:
    given = {"effect": 2.0, "trial_sd": 0.8, "seeds": 3, "num_studies": 120, **changes}
    return simulate_power(plws=SIX, **given)


def test_naming_a_weight_is_harder_than_finding_an_effect() -> None:
    for seeds in (2, 4):
        found = power(seeds=seeds)
        assert 0 < found.names <= found.power
    assert (found.num_trials, found.noise_sd, found.num_studies) == (24, 0.8, 120)


def test_more_seeds_larger_effects_and_fewer_claims_have_more_power() -> None:
    base = power().power
    assert power(seeds=6).power > base
    assert power(effect=3).power > base
    assert power(trial_sd=1.2).power < base
    assert power(num_claims=5).power < base


def test_noise_of_items_adds_to_that_of_trials() -> None:
    assert power(trial_sd=0.8, item_sd=0.6).noise_sd == pytest.approx(1.0)
    assert power(trial_sd=0.8, item_sd=0.6) == power(trial_sd=1.0)


def test_strong_effect_has_a_confidence_set_around_its_optimum() -> None:
    found = simulate_power(plws=SIX, seeds=5, effect=6, trial_sd=0.3, best_plw=0.1, num_studies=60)
    assert (found.power, found.names) == (1, 1)
    assert 0.01 <= found.plw_low <= 0.1 <= found.plw_high <= 0.3


def test_flat_truth_has_power_equal_to_the_level() -> None:
    """An effect of next to nothing: 5% of 200 studies are 10, over 20 in one case of 1,000."""
    assert (
        simulate_power(plws=SIX, seeds=3, effect=1e-6, trial_sd=1, num_studies=NUM).power < 21 / NUM
    )


def test_required_seeds_are_the_fewest_that_name_a_weight() -> None:
    given = {"plws": SIX, "effect": 3.0, "trial_sd": 0.8, "num_studies": 80}
    found = required_seeds(**given)
    assert found == simulate_power(seeds=found.seeds, **given)
    assert found.names >= 0.8
    assert found.seeds > 2
    fewer = simulate_power(seeds=found.seeds - 1, **given)
    assert fewer.names < 0.8


def test_strong_effect_still_needs_two_seeds() -> None:
    found = required_seeds(plws=SIX, effect=30, trial_sd=0.1, num_studies=20)
    assert (found.seeds, found.names) == (2, 1)


def test_effect_that_needs_over_100_seeds_is_rejected() -> None:
    with pytest.raises(InputError, match=r"0\.01 points with trial sd 1 needs more than 100"):
        required_seeds(plws=(0, 1), effect=0.01, trial_sd=1, num_studies=10)


def test_all_invalid_inputs_are_reported_at_once() -> None:
    with pytest.raises(InputError) as raised:
        simulate_power(plws=(0.1, 0.1), seeds=3, effect=0, trial_sd=-1, item_sd=-1)
    text = str(raised.value)
    assert "at least two weights in [0, 1] are needed, got [0.1]" in text
    assert "effect must be above 0 points, got 0" in text
    assert "trial sd must be above 0 points, got -1" in text
    assert "item sd must be at least 0 points, got -1" in text
    with pytest.raises(InputError, match="seeds and claims must be at least 1, got 0 and 1"):
        simulate_power(plws=(0, 1), seeds=0, effect=1, trial_sd=1)
    with pytest.raises(InputError, match=r"power must be in \(0, 1\), got 1"):
        required_seeds(plws=(0, 1), effect=1, trial_sd=1, target=1)
