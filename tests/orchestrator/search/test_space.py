"""Conversion of points between the spec's form and Optuna's."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator.search.space import Space
from orchestrator.spec.search_config import SearchConfig

MIXED = {
    "loss.prompt_loss_weight": {"low": 0, "high": 1},
    "optimizer.learning_rate": {"low": 1e-5, "high": 1e-3, "scale": "log"},
    "schedule.steps": {"low": 10, "high": 20},
    "loss.normalization": ["weights", "tokens"],
    "lora": [None, {"rank": 8}],
}


def space_of(space: dict[str, Any]) -> Space:
    return Space(SearchConfig.model_validate({"method": "tpe", "points": 9, "space": space}).space)


def test_plw_is_searched_as_w_p_and_a_list_by_index() -> None:
    assert space_of(MIXED).distributions() == {
        "loss.prompt_loss_weight": FloatDistribution(0, 1),
        "optimizer.learning_rate": FloatDistribution(1e-5, 1e-3, log=True),
        "schedule.steps": IntDistribution(10, 20),
        "loss.normalization": CategoricalDistribution((0, 1)),
        "lora": CategoricalDistribution((0, 1)),
    }


def test_the_ends_of_a_plw_range_are_converted_to_w_p() -> None:
    space = space_of({"loss.prompt_loss_weight": {"low": 0.01, "high": 0.1}})
    distribution = space.distributions()["loss.prompt_loss_weight"]
    assert isinstance(distribution, FloatDistribution)
    assert (distribution.low, distribution.high) == pytest.approx((0.25, 0.5), abs=1e-6)


def test_params_become_settings_with_four_digits() -> None:
    params = {
        "loss.prompt_loss_weight": 0.652,
        "optimizer.learning_rate": 1.23456e-4,
        "schedule.steps": 12,
        "loss.normalization": 1,
        "lora": 1,
    }
    assert space_of(MIXED).to_searched(params) == {
        "loss.prompt_loss_weight": 0.2415,
        "optimizer.learning_rate": 1.235e-4,
        "schedule.steps": 12,
        "loss.normalization": "tokens",
        "lora": {"rank": 8},
    }


def test_a_rounded_value_stays_in_its_range() -> None:
    space = space_of({"optimizer.learning_rate": {"low": 0.1, "high": 0.123456}})
    assert space.to_searched({"optimizer.learning_rate": 0.123456}) == {
        "optimizer.learning_rate": 0.123456
    }


@given(st.floats(0, 1))
def test_a_point_survives_a_round_trip_through_params(w_p: float) -> None:
    space = space_of({"loss.prompt_loss_weight": {"low": 0, "high": 1}})
    searched = space.to_searched({"loss.prompt_loss_weight": w_p})
    params = space.to_params(searched)
    assert params is not None
    assert params["loss.prompt_loss_weight"] == pytest.approx(w_p, abs=1e-4)
    assert space.to_searched(params) == searched


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_plw_0_and_1_stay_exact(weight: float) -> None:
    space = space_of({"loss.prompt_loss_weight": {"low": 0, "high": 1}})
    params = {"loss.prompt_loss_weight": weight}
    assert space.to_searched(params) == params
    assert space.to_params(params) == params


@pytest.mark.parametrize(
    "searched",
    [
        {"schedule.steps": 21, "loss.normalization": "tokens"},
        {"schedule.steps": 12.5, "loss.normalization": "tokens"},
        {"schedule.steps": 12, "loss.normalization": "completion"},
        {"schedule.steps": 12},
        {"schedule.steps": 12, "loss.normalization": "tokens", "seed": 1},
    ],
)
def test_a_point_outside_of_the_space_has_no_params(searched: dict[str, Any]) -> None:
    space = space_of({k: MIXED[k] for k in ("schedule.steps", "loss.normalization")})
    assert space.to_params(searched) is None


def test_the_size_is_the_number_of_points_or_none() -> None:
    assert space_of({k: MIXED[k] for k in ("schedule.steps", "lora")}).size() == 22
    assert space_of(MIXED).size() is None
