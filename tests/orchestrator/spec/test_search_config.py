"""The `search` section: valid configs, violated rules with line numbers, constraints."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from orchestrator.spec.constraints import read_constraint
from orchestrator.spec.search_config import SearchConfig
from orchestrator.spec.sweep_spec import load_spec
from trainers.foundation.errors import InputError

PLW = "loss.prompt_loss_weight"
RATE = "optimizer.learning_rate"
PLW_RANGE = {PLW: {"low": 0, "high": 1}}
GRID = {"space": {PLW: [0, 0.1, 1], RATE: [1e-5, 1e-4]}}
TPE = {"method": "tpe", "points": 12, "space": PLW_RANGE}


def problems_of(search: dict[str, Any], folder: Path) -> list[str]:
    """Return the problems of a spec with this search, each as `line: message; fix`."""
    path = folder / "sweep.yaml"
    spec = {"model": {"path": "m"}, "data": {"path": "d"}, "search": search}
    with path.open("w") as file:
        YAML().dump(spec, file)
    with pytest.raises(InputError) as caught:
        load_spec(path)
    return [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]


# Cases that malformed_specs.txt does not contain.
INVALID: list[tuple[dict[str, Any], str]] = [
    ({"space": {"data.heldout_examples": [8]}}, "all trials share the held-out examples"),
    (
        {**TPE, "space": {"batch.packing": {"low": 0, "high": 1}}},
        "batch.packing is not a number; list its values",
    ),
    ({**GRID, "exclude": [{"seed": 0}]}, "seed is not searched; "),
    ({**TPE, "constraints": [f"{PLW} <"]}, "is not a valid expression; example: optimizer."),
    ({**TPE, "constraints": [f"{PLW} * 2"]}, "must be a comparison with <, <=, >, >=, == or !="),
    ({**TPE, "constraints": ["__import__('os').name == 'a'"]}, "is not the name of a setting"),
    ({**TPE, "constraints": [f"max({PLW}, 1) < 2"]}, "got `max(loss.prompt_loss_weight, 1)`"),
    ({**TPE, "constraints": [f"{PLW} ** 9 < 2"]}, "or, not; got `loss.prompt_loss_weight ** 9`"),
    ({**TPE, "objectives": ["loss"]}, "loss depends on the prompt loss weight by definition"),
    (
        {**TPE, "space": {RATE: {"low": 1e-5, "high": 1e-4}}, "stop_when_plw_within": 0.1},
        "requires a range of loss.prompt_loss_weight in search.space",
    ),
]


@pytest.mark.parametrize(("search", "expected"), INVALID)
def test_a_violated_rule_is_reported_with_its_line(
    search: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    (problem,) = problems_of(search, tmp_path)
    line, _, message = problem.partition(": ")
    assert expected in message
    assert 5 <= int(line) <= 40


def test_the_line_is_that_of_the_invalid_value(tmp_path: Path) -> None:
    (problem,) = problems_of({**TPE, "space": {PLW: {"low": 0, "high": 1.5}}}, tmp_path)
    lines = (tmp_path / "sweep.yaml").read_text().splitlines()
    assert "1.5" in lines[int(problem.partition(":")[0]) - 1]


def test_all_violations_are_reported_at_once(tmp_path: Path) -> None:
    search = {
        "method": "tpe",
        "space": {PLW: {"low": 1, "high": 0}, "loss.normalisation": ["weights"]},
        "seeds": [1, 1],
    }
    assert [
        problem.partition(": ")[2].partition(";")[0] for problem in problems_of(search, tmp_path)
    ] == [
        "search.space.loss.prompt_loss_weight.low must be below high, got 1 and 0",
        "unknown setting loss.normalisation",
        "search.points is required for tpe",
        "search.seeds lists 1 twice",
    ]


def test_an_objective_without_its_evaluation_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    spec = {
        "model": {"path": "m"},
        "data": {"path": "d"},
        "search": TPE,
        "evals": {"heldout": None},
    }
    with path.open("w") as file:
        YAML().dump(spec, file)
    with pytest.raises(InputError, match=r"completion_loss requires evals\.heldout; set it"):
        load_spec(path)


def test_a_sampled_space_with_an_invalid_combination_is_rejected(tmp_path: Path) -> None:
    search = {**TPE, "space": {**PLW_RANGE, "schedule.steps": {"low": 1, "high": 8}}}
    (problem,) = problems_of(search, tmp_path)
    assert "set exactly one of schedule.epochs and schedule.steps" in problem
    assert problem.endswith("change the space, or add a constraint")


def test_a_grid_defaults_to_the_heldout_loss() -> None:
    config = SearchConfig.model_validate({"method": "grid", "space": {PLW: [0, 0.1]}})
    assert config.space == {PLW: [0, 0.1]}
    assert config.objectives == ["heldout_completion_loss"]


def test_model_data_and_seed_can_be_searched() -> None:
    space = {"model.path": ["a", "b"], "data.path": ["c", "d"], "seed": [0, 1]}
    assert SearchConfig.model_validate({"space": space}).space == space


@given(
    low=st.floats(0, 0.5),
    width=st.floats(0.01, 0.5),
    method=st.sampled_from(["random", "tpe", "gp"]),
    seeds=st.none() | st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True),
    rates=st.none() | st.lists(st.floats(1e-6, 1), min_size=1, max_size=3, unique=True),
    budget=st.none() | st.floats(0.1, 9),
)
def test_a_config_survives_a_round_trip_through_json(
    low: float,
    width: float,
    method: str,
    seeds: list[int] | None,
    rates: list[float] | None,
    budget: float | None,
) -> None:
    content = {
        "method": method,
        "points": 8,
        "space": {PLW: {"low": low, "high": low + width}, **({RATE: rates} if rates else {})},
        "seeds": seeds,
        "constraints": [f"{PLW} >= 0"],
        "budget": {"hours": budget},
    }
    config = SearchConfig.model_validate(content)
    assert SearchConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimizer.learning_rate * schedule.epochs <= 2e-4", True),
        ("optimizer.learning_rate * schedule.epochs < 2e-4", False),
        ("not (schedule.epochs > 1)", False),
        ("0 < schedule.epochs <= 2 and loss.normalization == 'weights'", True),
        ("schedule.epochs == 1 or loss.normalization != 'weights'", False),
        ("-schedule.epochs + 4 / 2 - 1 == -1", True),
        ("1 / (schedule.epochs - 2) < 1", False),
    ],
)
def test_constraints_evaluate_like_python(text: str, expected: bool) -> None:
    searched = {RATE: 1e-4, "schedule.epochs": 2, "loss.normalization": "weights"}
    assert read_constraint(text).holds(searched) is expected
