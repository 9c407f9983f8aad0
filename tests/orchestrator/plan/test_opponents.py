"""PandaLM's opponent is the trial with PLW 0: which one, and specs without it."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.plan.sweep_plan import SweepPlan, make_plan
from orchestrator.spec.sweep_spec import load_spec
from tests.orchestrator.plan.test_plan import write_spec
from tests.orchestrator.plw import refused
from trainers.foundation.errors import InputError

PLW = "loss.prompt_loss_weight"
WHERE = "evals.pandalm_prompts.opponent"


def spec_with_judge(folder: Path, search: dict[str, Any], **pandalm: Any) -> Path:
    prompts = folder / "prompts.json"
    prompts.write_text('[{"instruction": "Sing."}]')
    judge = {"base_url": "http://127.0.0.1:9/v1", "model": "judge", "api_key_env": None}
    evals = {
        "heldout": {"examples": 8},
        "heldout_choice": None,
        "heldout_exact_match": None,
        "heldout_chrf": None,
        "pandalm_prompts": {"prompts": str(prompts), **pandalm},
        "judge": judge,
    }
    return write_spec(folder, search=search, evals=evals)


def plan(folder: Path, search: dict[str, Any], **pandalm: Any) -> SweepPlan:
    return make_plan(load_spec(spec_with_judge(folder, search, **pandalm))).plan


def test_each_trials_opponent_has_plw_0_and_the_same_rest(tmp_path: Path) -> None:
    rate = "optimizer.learning_rate"
    space = {PLW: [0.1, 0, 1], rate: [1.0e-4, 1.0e-3]}
    trials = plan(tmp_path, {"space": space, "seeds": [1, 2]}).trials
    of = {(t.searched[PLW], t.searched[rate], t.searched["seed"]): t for t in trials}
    assert len(of) == 12
    for (_, learning_rate, seed), trial in of.items():
        assert trial.opponent == of[0, learning_rate, seed].id


def test_other_opponents_need_no_trial(tmp_path: Path) -> None:
    found = plan(tmp_path, {"space": {PLW: [0.1, 1]}}, opponent="untuned")
    assert [trial.opponent for trial in found.trials] == [None, None]


def test_a_search_over_the_weight_starts_with_the_opponent(tmp_path: Path) -> None:
    search = {"method": "random", "points": 4, "space": {PLW: {"low": 0, "high": 1}}}
    first = plan(tmp_path, search).trials[0]
    assert first.searched == {PLW: 0}
    assert first.opponent == first.id


@pytest.mark.parametrize(
    ("search", "subject"),
    [
        ({"space": {PLW: [0.1, 1]}}, f"the trial {{'{PLW}': 0.1}}"),
        (
            {"space": {PLW: [0, 1], "seed": [3, 4]}, "exclude": [{PLW: 0, "seed": 4}]},
            f"the trial {{'{PLW}': 1, 'seed': 4}}",
        ),
        (
            {"method": "random", "points": 4, "space": {PLW: {"low": 0.1, "high": 1}}},
            f"a trial of the search over {PLW}",
        ),
        (
            {
                "method": "random",
                "points": 4,
                "space": {
                    PLW: {"low": 0, "high": 1},
                    "optimizer.learning_rate": {"low": 1.0e-5, "high": 1.0e-3},
                },
            },
            f"a trial of the search over {PLW}, optimizer.learning_rate",
        ),
    ],
)
def test_a_sweep_without_the_opponent_is_rejected(
    tmp_path: Path, search: dict[str, Any], subject: str
) -> None:
    with pytest.raises(InputError) as raised:
        plan(tmp_path, search)
    [problem] = raised.value.problems
    assert problem.where == WHERE
    assert problem.message.endswith(f"the sweep has none for {subject}")
    assert problem.fix is not None
    assert problem.fix.startswith(f"add 0 to search.space.{PLW}, or set {WHERE} to a file")


def test_plw_plan_reports_it(tmp_path: Path) -> None:
    path = spec_with_judge(tmp_path, {"space": {PLW: [0.1, 1]}})
    assert f"{WHERE}: the opponent in pandalm_prompts is the trial with PLW 0" in refused(
        "plan", path
    )
    assert not (tmp_path / "runs").exists()


def test_early_stopping_could_end_the_opponent(tmp_path: Path) -> None:
    path = spec_with_judge(
        tmp_path,
        {"space": {PLW: [0, 1]}, "early_stopping": {"method": "median", "first_step": 1}},
    )
    with pytest.raises(InputError, match="early_stopping may stop the trial with PLW 0"):
        make_plan(load_spec(path))
