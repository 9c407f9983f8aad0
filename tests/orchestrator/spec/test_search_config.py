"""The `search` section: what is right stays so, what is wrong is said with its line."""

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
    """What is wrong with a spec of this search, each as `line: message; fix`."""
    path = folder / "mine.yaml"
    spec = {"model": {"path": "m"}, "data": {"path": "d"}, "search": search}
    with path.open("w") as file:
        YAML().dump(spec, file)
    with pytest.raises(InputError) as caught:
        load_spec(path)
    return [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({**GRID, "method": "bayes"}, "search.method: input should be 'grid', 'random', 'tpe' or 'gp'"),
    ({"space": {PLW: 0.1}}, "must be a list of values or a range such as {low: 0, high: 1}"),
    ({"space": PLW_RANGE}, "is a range, and a grid needs lists; list values, or set search.method"),
    ({"space": {"loss.plw": [0]}}, "unknown setting loss.plw; "),
    ({"space": {"data.seed": [0, 1]}}, "data.seed cannot be searched: trials are compared on the"),
    ({"space": {"data.heldout_examples": [8]}}, "cannot be searched: trials are compared on the"),
    ({"space": {"checkpoint.keep": [1, 2]}}, "it does not change a trial's result"),
    ({**TPE, "space": {PLW: {"low": 0, "high": 1, "hihg": 1}}}, "did you mean high?"),
    ({**TPE, "space": {PLW: {"low": 0}}}, f"search.space.{PLW}.high is required"),
    ({**TPE, "space": {PLW: {"low": 0, "high": 2}}}, f"{PLW}.high: input should be less than or"),
    ({**TPE, "space": {PLW: {"low": 0.5, "high": 0.5}}}, "low must be below high, got 0.5 and 0.5"),
    ({**TPE, "space": {PLW: {"low": 0, "high": 1, "scale": "log"}}}, "has a scale of its own"),
    (
        {**TPE, "space": {"optimizer.weight_decay": {"low": 0, "high": 1, "scale": "log"}}},
        "low must be above 0 on a log scale, got 0; raise low, or take scale: linear",
    ),
    (
        {**TPE, "space": {"schedule.steps": {"low": 1.5, "high": 8}}},
        "search.space.schedule.steps.low must be a whole number, got 1.5",
    ),
    (
        {**TPE, "space": {"loss.normalization": {"low": 0, "high": 1}}},
        "loss.normalization is a range, and loss.normalization is no number; list its values",
    ),
    (
        {**TPE, "space": {"batch.packing": {"low": 0, "high": 1}}},
        "batch.packing is no number; list its values",
    ),
    ({"method": "gp", "space": PLW_RANGE}, "search.points is required for gp; add it"),
    ({**GRID, "points": 3}, "search.points is not for a grid, which has its own, got 3"),
    ({**TPE, "points": 1}, "must hold the first points, 2 with PLW 0 and 1, got 1; raise it"),
    ({**GRID, "seeds": []}, "search.seeds: needs at least 1 value"),
    ({**GRID, "seeds": [1, 1]}, "search.seeds lists 1 twice; drop one"),
    ({**GRID, "seeds": [-1]}, "search.seeds.0: input should be greater than or equal to 0, got -1"),
    ({"space": {"seed": [0, 1]}, "seeds": [1]}, "seed is in search.space and search.seeds repeats"),
    ({**GRID, "exclude": [{PLW: 0.2}]}, "must be in search.space, got 0.2; there: 0, 0.1, 1"),
    ({**GRID, "exclude": [{"seed": 0}]}, "seed is not searched; "),
    ({**GRID, "exclude": [{PLW: 0}, {PLW: 0.1}, {PLW: 1}]}, "leaves no point of the grid"),
    ({**TPE, "exclude": [{PLW: 0}]}, "search.exclude is for a grid; use search.constraints"),
    ({**GRID, "constraints": [f"{PLW} < 1"]}, "search.constraints are not for a grid"),
    ({**TPE, "constraints": [f"{PLW} <"]}, "cannot be read as a condition; write it like"),
    ({**TPE, "constraints": [f"{PLW} * 2"]}, "must compare something, with <, <=, >, >=, == or !="),
    ({**TPE, "constraints": ["__import__('os').name == 'a'"]}, "names no setting"),
    ({**TPE, "constraints": [f"max({PLW}, 1) < 2"]}, "not `max(loss.prompt_loss_weight, 1)`"),
    ({**TPE, "constraints": [f"{PLW} ** 9 < 2"]}, "may stand in it, not `loss.prompt_loss_weight"),
    ({**TPE, "constraints": ["seed < 1"]}, "names seed, which is not searched"),
    ({**TPE, "constraints": ["1 < 2"]}, "names no searched setting; name one"),
    ({**TPE, "constraints": [f"{PLW} < 'a'"]}, "compare numbers with numbers"),
    ({**GRID, "first_points": [{PLW: 0}]}, "search.first_points are not for a grid"),
    ({**TPE, "first_points": [{PLW: 2}]}, "must be in search.space, got 2; there: 0 to 1"),
    ({**TPE, "first_points": [{PLW: 0.5}, {PLW: 0.5}]}, "twice; drop one"),
    (
        {**TPE, "constraints": [f"{PLW} < 0.5"], "first_points": [{PLW: 0.5}]},
        "breaks the constraint 'loss.prompt_loss_weight < 0.5'; change one of them",
    ),
    ({**TPE, "objectives": ["loss"]}, "loss moves with the prompt loss weight itself; take of"),
    ({**TPE, "objectives": ["heldout_prompt_loss"]}, "moves with the prompt loss weight itself"),
    ({**TPE, "objectives": ["accuracy"]}, "'accuracy' is no score; did you mean multiple_choice_"),
    ({**TPE, "objectives": ["long_generation_chrf"] * 2}, "lists long_generation_chrf twice"),
    (
        {**TPE, "budget": {"money": 5}},
        "needs resources.price_per_gpu_hour above 0; give",
    ),
    ({**TPE, "budget": {"hours": 0}}, "search.budget.hours: input should be greater than 0, got 0"),
    ({**GRID, "stop_when_plw_within": 0.1}, "is for tpe and gp, not for grid; drop it"),
    (
        {**TPE, "space": {RATE: {"low": 1e-5, "high": 1e-4}}, "stop_when_plw_within": 0.1},
        "needs a range of loss.prompt_loss_weight in search.space",
    ),
    (
        {
            **TPE,
            "objectives": ["long_generation_chrf", "multiple_choice_accuracy"],
            "stop_when_plw_within": 0.1,
        },
        "is for one objective, got 2; drop it, or keep one objective",
    ),
]


@pytest.mark.parametrize(("search", "expected"), WRONG)
def test_a_wrong_search_is_said_with_its_line(
    search: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    (problem,) = problems_of(search, tmp_path)
    line, _, message = problem.partition(": ")
    assert expected in message
    assert 5 <= int(line) <= 40


def test_the_line_is_that_of_the_wrong_value(tmp_path: Path) -> None:
    (problem,) = problems_of({**TPE, "space": {PLW: {"low": 0, "high": 1.5}}}, tmp_path)
    lines = (tmp_path / "mine.yaml").read_text().splitlines()
    assert "1.5" in lines[int(problem.partition(":")[0]) - 1]


def test_all_broken_rules_come_at_once(tmp_path: Path) -> None:
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


def test_an_objective_that_evals_leave_out_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    spec = {
        "model": {"path": "m"},
        "data": {"path": "d"},
        "search": TPE,
        "evals": {"heldout": None},
    }
    with path.open("w") as file:
        YAML().dump(spec, file)
    with pytest.raises(
        InputError, match=r"completion_loss is not measured, because evals\.heldout is null"
    ):
        load_spec(path)


def test_a_sampled_space_that_holds_an_impossible_fine_tune_is_named(tmp_path: Path) -> None:
    search = {**TPE, "space": {**PLW_RANGE, "schedule.steps": {"low": 1, "high": 8}}}
    (problem,) = problems_of(search, tmp_path)
    assert "give exactly one of schedule.epochs and schedule.steps" in problem
    assert problem.endswith("change the space, or add a constraint")


def test_the_old_form_of_a_grid_stays_right() -> None:
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
def test_a_constraint_means_what_it_says(text: str, expected: bool) -> None:
    searched = {RATE: 1e-4, "schedule.epochs": 2, "loss.normalization": "weights"}
    assert read_constraint(text).holds(searched) is expected
