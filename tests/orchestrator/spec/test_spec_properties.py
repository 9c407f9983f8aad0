"""Property tests: a spec that validates can be planned and survives a JSON round trip."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, reject, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.plan.sweep_plan import SweepPlan, make_plan
from orchestrator.search.methods import make_search
from orchestrator.search.points import point_key
from orchestrator.spec.constraints import all_hold, read_constraint
from orchestrator.spec.search_fields import OBJECTIVES
from orchestrator.spec.search_points import is_value_in
from orchestrator.spec.sweep_spec import SweepSpec
from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import write_data
from trainers.foundation.errors import InputError

EVALUATIONS = ("heldout_choice", "heldout_exact_match", "heldout_chrf")
PLW = "loss.prompt_loss_weight"
# Values of settings: lists are drawn from CHOICES, ranges lie within RANGES and INTEGER_RANGES.
CHOICES: dict[str, list[Any]] = {
    PLW: [0, 0.01, 0.1, 1, 1.0],
    "loss.normalization": ["weights", "nonzero", "completion", "tokens"],
    "loss.role_weights.completion": [None, 0, 0.5],
    "loss.role_weights.template": [None, 0.0, 1.0],
    "optimizer.learning_rate": [1e-5, 1e-3, 1],
    "optimizer.l2_sp": [0.0, 0.1],
    "schedule.steps": [None, 1, 3],
    "schedule.epochs": [None, 0.5, 2],
    "schedule.kind": ["cosine", "constant"],
    "batch.global_batch_size": [1, 8],
    "batch.packing": [True, False],
    "model.attention": ["sdpa", "eager"],
    "model.dropout": [None, 0.0, 0.1],
    "data.max_length": [32, 64],
    "data.train_examples": [None, 5, 1000],
    "data.template": ["plain", "alpaca"],
    "deepspeed.zero_stage": [0, 1, 2, 3],
    "deepspeed.precision": ["float32", "bfloat16"],
    "deepspeed.offload_parameters": [False, True],
    "deepspeed.override": [{}, {"wall_clock_breakdown": True}],
    "lora": [None, {}, {"rank": 4}],
    "seed": [0, 1, 2**32 - 1],
}
RANGES: dict[str, tuple[float, float]] = {
    PLW: (0, 1),
    "optimizer.learning_rate": (1e-8, 1),
    "optimizer.weight_decay": (0, 10),
    "loss.label_smoothing": (0, 0.999),
    "schedule.epochs": (1e-3, 1e6),
    "model.dropout": (0, 0.999),
    "schedule.warmup_ratio": (0, 0.999),
}
INTEGER_RANGES: dict[str, tuple[int, int]] = {
    "schedule.steps": (1, 10**12),
    "batch.global_batch_size": (1, 10**12),
    "data.train_examples": (1, 10**6),
    "seed": (0, 2**32 - 1),
}

budgets = st.fixed_dictionaries(
    {},
    optional={
        "trials": st.integers(1, 100),
        "hours": st.floats(1e-6, 1e6),
        "gpu_hours": st.floats(1e-6, 1e6),
        "money": st.floats(1e-6, 1e6),
    },
)
stopping = st.fixed_dictionaries(
    {"method": st.sampled_from(["asha", "median"]), "first_step": st.integers(1, 10**6)},
    optional={
        "every_steps": st.none() | st.integers(1, 100),
        "reduction_factor": st.floats(1.01, 10),
        "min_points": st.integers(1, 9),
    },
)


@st.composite
def values_of(draw: st.DrawFn, dotted: str, *, is_grid: bool) -> Any:
    """Draw a list of values for a setting or, except for a grid, possibly a range."""
    has_range = dotted in RANGES or dotted in INTEGER_RANGES
    if dotted not in CHOICES or (has_range and not is_grid and draw(st.booleans())):
        if dotted in INTEGER_RANGES:
            ends: Any = st.integers(*INTEGER_RANGES[dotted])
        else:
            ends = st.floats(*RANGES[dotted])
        low, high = sorted(draw(st.lists(ends, min_size=2, max_size=2, unique=True)))
        scales = [None] if dotted == PLW else [None, "linear", *(["log"] if low > 0 else [])]
        scale = draw(st.sampled_from(scales))
        return {"low": low, "high": high, **({"scale": scale} if scale else {})}
    return draw(st.lists(st.sampled_from(CHOICES[dotted]), min_size=1, max_size=3, unique_by=repr))


def one_of(values: Any) -> st.SearchStrategy[Any]:
    """Draw a value of a list, or an end of a range."""
    return st.sampled_from(values if isinstance(values, list) else [values["low"], values["high"]])


@st.composite
def constraints_on(draw: st.DrawFn, dotted: str, space: dict[str, Any]) -> str:
    """Draw a condition on a searched number, which may exclude the whole space."""
    values = space[dotted]
    bound = draw(st.sampled_from([0, 0.05, 1e-4, 2] if isinstance(values, dict) else values))
    sign = draw(st.sampled_from(["<", "<=", ">", ">=", "==", "!="]))
    return f"{dotted} {sign} {bound!r}"


@st.composite
def searches(draw: st.DrawFn, method: str) -> dict[str, Any]:
    """Draw a `search` section, valid in most cases."""
    is_grid = method == "grid"
    names = sorted(CHOICES if is_grid else {*CHOICES, *RANGES, *INTEGER_RANGES})
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
    space = {name: draw(values_of(name, is_grid=is_grid)) for name in chosen}
    search: dict[str, Any] = {
        "method": method,
        "space": space,
        "objectives": draw(
            st.lists(st.sampled_from(list(OBJECTIVES)), min_size=1, max_size=2, unique=True)
        ),
        "budget": draw(budgets),
        "early_stopping": draw(st.none() | stopping),
        "seeds": draw(
            st.none() | st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3, unique=True)
        ),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }
    part = {name: draw(one_of(values)) for name, values in space.items()}
    if is_grid:
        search["exclude"] = [part] if draw(st.booleans()) else []
        return search
    search["points"] = draw(st.integers(1, 20) | st.just(10**12))
    search["points_to_evaluate"] = [part] if draw(st.booleans()) else []
    named = draw(st.sampled_from(chosen))
    if draw(st.booleans()):
        search["constraints"] = [draw(constraints_on(named, space))]
    is_plw_range = isinstance(space.get(PLW), dict) and len(search["objectives"]) == 1
    if method != "random" and is_plw_range and draw(st.booleans()):
        search["stop_when_plw_within"] = draw(st.floats(0.01, 0.49))
    return search


@st.composite
def contents(draw: st.DrawFn, method: str) -> dict[str, Any]:
    """Draw the content of a spec on the tiny model and data of this module."""
    search = draw(searches(method))
    unused = [name for name in EVALUATIONS if not any(name in o for o in search["objectives"])]
    prices = st.floats(0.01, 1e6)
    is_priced = "money" in search["budget"]
    return {
        "name": draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)),
        "output_dir": "runs",
        "model": {"path": "model"},
        "data": {"path": "data.jsonl", "template": "plain", "max_length": 64,
                 "heldout_examples": 8},
        "schedule": draw(st.sampled_from([{"steps": 3}, {"epochs": 2.5}])),
        "deepspeed": {"precision": draw(st.sampled_from(["float32", "bfloat16"]))},
        "resources": {
            "workers_per_trial": draw(st.integers(1, 64)),
            "gpus_per_worker": draw(st.none() | st.floats(0, 8)),
            "price_per_gpu_hour": draw(prices if is_priced else st.none() | prices),
        },
        "evals": {"heldout": {"examples": 4}, **dict.fromkeys(draw(
            st.sets(st.sampled_from(unused))))},
        "search": search,
    }  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run these tests in a folder with a model and data."""
    folder = tmp_path_factory.mktemp("workspace")
    save_tiny_model(folder / "model")
    write_data(folder / "data.jsonl", 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def examples(count: int) -> settings:
    """Return settings with deterministic examples and without time limits."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


def spec_of(content: dict[str, Any]) -> SweepSpec:
    """Return the spec if it is valid; otherwise reject the example."""
    try:
        return SweepSpec.model_validate(content)
    except ValidationError as error:
        event(f"invalid: {error.errors()[0]['msg'][:60]}")
        reject()


def plan_of(spec: SweepSpec) -> SweepPlan | None:
    """Return the plan; None if values violate a rule in combination, or no point is left."""
    try:
        return make_plan(spec).plan
    except InputError as error:
        for problem in error.problems:
            assert problem.fix or problem.message.startswith("and "), problem
            assert any(words in problem.message for words in COMBINATION_ERRORS), problem
        return None


COMBINATION_ERRORS = (
    " is not valid: ",
    " are the same: ",
    "no point was found in search.space that meets ",
    "no example fits data.max_length ",
    "search.early_stopping.first_step must be less than the steps of a trial",
)


@examples(20)
@pytest.mark.parametrize("method", ["grid", "random", "tpe", "gp"])
@given(data=st.data())
def test_a_valid_spec_can_be_planned(method: str, data: st.DataObject) -> None:
    spec = spec_of(data.draw(contents(method)))
    plan = plan_of(spec)
    event(f"{spec.search.method}: {'rejected' if plan is None else 'planned'}")
    if plan is None:
        return
    ids = [trial.id for trial in plan.trials]
    assert ids
    assert len(set(ids)) == len(ids)
    assert SweepPlan.model_validate_json(plan.model_dump_json()) == plan
    assert make_plan(SweepSpec.model_validate(spec.model_dump(mode="json"))).plan == plan


@examples(60)
@given(st.sampled_from(["grid", "random", "tpe", "gp"]).flatmap(contents))
def test_a_spec_survives_a_json_round_trip(content: dict[str, Any]) -> None:
    spec = spec_of(content)
    assert SweepSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert SweepSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("method", ["grid", "random", "tpe", "gp"])
@examples(20)
@given(data=st.data())
def test_points_of_a_search_are_in_its_space(method: str, data: st.DataObject) -> None:
    config = spec_of(data.draw(contents(method))).search
    search = make_search(config)
    points = [point.searched for _ in range(5) if (point := search.ask()) is not None]
    assert len({point_key(point) for point in points}) == len(points)
    for point in points:
        assert point.keys() == config.space.keys()
        assert all(
            is_value_in(config.space[dotted], dotted, value) for dotted, value in point.items()
        )
        assert all_hold([read_constraint(text) for text in config.constraints], point)
