"""How many seeds it takes, against simulation."""

import numpy as np
import pytest

from orchestrator.statistics.mixed_model import fit_trials
from orchestrator.statistics.power import power_of, seeds_needed
from orchestrator.transform import w_p
from trainers.errors import InputError

PLWS = (0, 0.01, 0.05, 0.1, 0.25, 1)


@pytest.mark.parametrize(("effect", "seeds"), [(2.0, 3), (1.0, 3), (1.5, 2)])
def test_the_closed_form_is_what_simulated_studies_give(effect: float, seeds: int) -> None:
    rng = np.random.default_rng(5)
    at = np.repeat([w_p(plw) for plw in PLWS], seeds)
    shape = -((at - 0.652) ** 2)
    curve = effect * shape / np.ptp(shape)
    seed = np.tile(np.arange(seeds), len(PLWS))
    # Each seed has a level of its own.
    terms = np.column_stack([np.eye(seeds)[seed], at, at**2])
    seen = 0
    for _ in range(1000):
        scores = curve + rng.normal(0, 3, seeds)[seed] + rng.normal(0, 0.7, len(at))
        fit = fit_trials(scores, terms, np.arange(len(at)))
        seen += fit.f_test(np.eye(seeds + 2)[seeds:])[0] < 0.05
    said = power_of(plws=PLWS, seeds=seeds, effect=effect, trial_sd=0.7)
    assert said.num_trials == 6 * seeds
    # Three standard errors of a simulated share.
    assert said.power == pytest.approx(seen / 1000, abs=0.048)


def test_the_seeds_are_the_fewest_that_are_enough() -> None:
    found = seeds_needed(plws=PLWS, effect=1.0, trial_sd=0.7)
    fewer = power_of(plws=PLWS, seeds=found.seeds - 1, effect=1.0, trial_sd=0.7)
    assert found.power >= 0.8 > fewer.power
    assert found.num_trials == 6 * found.seeds


def test_more_noise_smaller_effects_and_more_claims_need_more_seeds() -> None:
    base = seeds_needed(plws=PLWS, effect=1.0, trial_sd=0.7).seeds
    assert seeds_needed(plws=PLWS, effect=0.5, trial_sd=0.7).seeds > 2 * base
    assert seeds_needed(plws=PLWS, effect=1.0, trial_sd=0.7, item_sd=1.0).seeds > base
    assert seeds_needed(plws=PLWS, effect=1.0, trial_sd=0.7, num_claims=4).seeds > base


def test_the_interval_to_expect_shrinks_with_seeds_and_stays_in_the_range() -> None:
    few = power_of(plws=PLWS, seeds=3, effect=2.0, trial_sd=0.7)
    many = power_of(plws=PLWS, seeds=30, effect=2.0, trial_sd=0.7)
    assert few.plw_low < many.plw_low < 0.242 < many.plw_high < few.plw_high <= 1


def test_one_seed_of_three_weights_shows_nothing() -> None:
    assert power_of(plws=(0, 0.1, 1), seeds=1, effect=5, trial_sd=0.1).power == 0


def test_what_cannot_be_computed_is_refused_all_at_once() -> None:
    with pytest.raises(InputError) as raised:
        seeds_needed(plws=(0, 1), effect=0, trial_sd=-1, item_sd=-1)
    assert len(raised.value.problems) == 4
    with pytest.raises(InputError, match="need over 10000 seeds"):
        seeds_needed(plws=PLWS, effect=0.001, trial_sd=5)
    with pytest.raises(InputError, match=r"power must be in \(0, 1\), got 1"):
        seeds_needed(plws=PLWS, effect=1, trial_sd=1, target=1)
