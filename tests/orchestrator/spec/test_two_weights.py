"""A search over the prompt and completion weight together: valid specs, errors and fixes."""

from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution

from orchestrator.plan.sweep_plan import make_plan
from orchestrator.search.space import Space
from orchestrator.spec.sweep_spec import load_spec
from orchestrator.spec.two_weights import loss_weights_of, only_ratio_counts_warning, ratio_of
from tests.orchestrator.plan.test_plan import write_spec
from tests.orchestrator.plw import plw, refused
from trainers.foundation.errors import InputError

PLW, COMPLETION = "loss.prompt_loss_weight", "loss.role_weights.completion"
BOTH_ZERO = {PLW: 0, COMPLETION: 0}
SUM = f"{PLW} + {COMPLETION} > 0"


def problems_of(path: Path) -> list[str]:
    """Return the problems of a spec, without locations."""
    with pytest.raises(InputError) as caught:
        make_plan(load_spec(path))
    return [f"{problem.message}; {problem.fix}" for problem in caught.value.problems]


def grid(prompts: list[Any], completions: list[Any], **changes: Any) -> dict[str, Any]:
    return {"space": {PLW: prompts, COMPLETION: completions}, **changes}


def tpe(completion: dict[str, Any], **changes: Any) -> dict[str, Any]:
    space = {PLW: {"low": 0, "high": 1}, COMPLETION: completion}
    return {"method": "tpe", "points": 6, "space": space, **changes}


def test_a_grid_has_every_pair_and_null_is_a_completion_weight_of_1(tmp_path: Path) -> None:
    search = grid([0, 0.1], [0.5, None])
    plan = make_plan(load_spec(write_spec(tmp_path, search=search))).plan
    assert [loss_weights_of(trial.settings) for trial in plan.trials] == [
        (0.0, 0.5),
        (0.0, 1.0),
        (0.1, 0.5),
        (0.1, 1.0),
    ]


def test_a_grid_with_both_weights_0_is_rejected_with_the_exclusion_to_add(
    tmp_path: Path,
) -> None:
    [problem] = problems_of(write_spec(tmp_path, search=grid([0, 0.1], [0, 1])))
    assert problem == (
        f"the trial {BOTH_ZERO} is not valid: the weight of at least one role must be above 0, "
        f"but {COMPLETION}, that of thinking and those of all prompt roles are 0; add "
        f"search.exclude: [{{{PLW}: 0, {COMPLETION}: 0}}]"
    )
    path = write_spec(tmp_path, search=grid([0, 0.1], [0, 1], exclude=[BOTH_ZERO]))
    assert len(make_plan(load_spec(path)).plan.trials) == 3


def test_ranges_with_both_weights_0_are_rejected_with_the_constraint_to_add(
    tmp_path: Path,
) -> None:
    search = tpe({"low": 0, "high": 1})
    [problem] = problems_of(write_spec(tmp_path, search=search))
    assert problem.startswith(f"search.space includes {{'{PLW}': 0.0, '{COMPLETION}': 0.0}}, which")
    assert problem.endswith(f"are 0; add search.constraints: [{SUM}]")
    path = write_spec(tmp_path, search={**search, "constraints": [SUM]})
    prepared = make_plan(load_spec(path))
    assert len(prepared.plan.trials) == 2
    assert prepared.plan.num_open == 4


@pytest.mark.parametrize("scale", [None, "log"])
def test_the_completion_weight_is_searched_on_a_linear_or_log_scale(
    scale: str | None, tmp_path: Path
) -> None:
    search = tpe({"low": 0.1, "high": 1, "scale": scale})
    spec = load_spec(write_spec(tmp_path, search=search))
    assert Space(spec.search.space).distributions() == {
        PLW: FloatDistribution(0, 1),
        COMPLETION: FloatDistribution(0.1, 1, log=scale == "log"),
    }


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        (
            grid([0.1], [0.5, 1.5]),
            f"search.space.{COMPLETION}: input should be less than or equal to 1, got 1.5; edit "
            f"search.space.{COMPLETION}",
        ),
        (
            grid([0.1], [-0.1]),
            f"search.space.{COMPLETION}: input should be greater than or equal to 0, got -0.1; "
            f"edit search.space.{COMPLETION}",
        ),
        (
            tpe({"low": 0.1, "high": 2}),
            f"search.space.{COMPLETION}.high: input should be less than or equal to 1, got 2.0; "
            f"edit search.space.{COMPLETION}",
        ),
        (
            tpe({"low": 0, "high": 1, "scale": "log"}, constraints=[SUM]),
            f"search.space.{COMPLETION}.low must be above 0 on a log scale, got 0; raise low, or "
            "set scale: linear",
        ),
        (
            grid([0.1], [0.5, None, 1]),
            f"search.space.{COMPLETION} lists null and 1, which are the same weight; remove null",
        ),
    ],
)
def test_an_invalid_completion_weight_is_rejected(
    search: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    assert problems_of(write_spec(tmp_path, search=search)) == [expected]


def test_the_plan_warns_if_only_the_ratio_has_an_effect(tmp_path: Path) -> None:
    search = grid([0.1, 0.2], [0.5, 1])
    path = write_spec(tmp_path, search=search)
    warning = "loss.normalization: weights divides by the sum of all weights, so only the ratio"
    output = " ".join(plw("plan", path).output.split())
    assert (
        f"warning: {warning} of prompt to completion weight has an effect: 1 of 4 pairs" in output
    )
    search = {**search, "seeds": [0, 1]}
    other = write_spec(tmp_path, search=search, loss={"normalization": "completion"})
    assert "warning" not in plw("plan", other).output


def test_no_warning_with_one_searched_weight_or_with_role_weights(
    tmp_path: Path,
) -> None:
    def warning_of(search: dict[str, Any], **loss: Any) -> str | None:
        path = write_spec(tmp_path, search=search, loss=loss)
        return only_ratio_counts_warning(t.settings for t in make_plan(load_spec(path)).plan.trials)

    assert warning_of(grid([0.1, 0.2], [1])) is None
    both = grid([0.1, 0.2], [0.5, 0.7])
    assert warning_of(both, role_weights={"template": 0.0}) is None
    found = warning_of(both)
    assert found is not None
    assert "completion weight has an effect. Use completion, nonzero or tokens" in found


def test_ratios_have_nine_digits_and_are_none_without_completion_weight() -> None:
    assert ratio_of(0.1, 0.3) == ratio_of(0.3, 0.9) == 0.333333333
    assert ratio_of(0.0, 0.5) == 0.0
    assert ratio_of(0.5, 0.0) is None


def test_the_command_rejects_both_weights_0_with_exit_code_2(tmp_path: Path) -> None:
    path = write_spec(tmp_path, search=grid([0, 0.1], [0, 1]))
    assert "add search.exclude: [{loss.prompt_loss_weight: 0" in refused("plan", path)
