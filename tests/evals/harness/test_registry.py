"""Names of tasks: which there are, which were meant, and what lm-eval need not be asked again."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from evals.config import EvalConfig
from evals.harness.preflight import check_data
from evals.harness.registry import unknown_task
from trainers.foundation.errors import InputError


def write_names(folder: Path, *names: str) -> Path:
    path = folder / f"lm_eval-{version('lm_eval')}-tasks.json"
    path.write_text(json.dumps(names))
    return path


def test_a_typo_in_a_task_shows_the_nearest_names() -> None:
    assert str(unknown_task("arc_chalenge", ["arc_easy", "arc_challenge", "piqa"])) == (
        "evals.tasks: there is no task 'arc_chalenge'; did you mean arc_challenge or arc_easy?"
    )
    assert str(unknown_task("alpacaeval", [])).endswith("; did you mean alpaca_eval?")
    assert str(unknown_task("multiple_choise", [])).endswith("; did you mean multiple_choice?")


@pytest.mark.parametrize("tasks", [["piqa", "multiple_choice"], ["hellaswag", "piqa"]])
def test_ours_and_those_seen_before_need_no_lm_eval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: list[str]
) -> None:
    monkeypatch.setenv("PLW_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    write_names(tmp_path, "hellaswag", "mmlu")
    check_data(EvalConfig.model_validate({"tasks": tasks}))


@pytest.mark.slow
def test_a_name_that_was_not_seen_before_is_looked_for_in_lm_eval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLW_CACHE_DIR", str(tmp_path))
    kept = write_names(tmp_path, "mmlu")
    check_data(EvalConfig.model_validate({"tasks": ["hellaswag"]}))
    assert {"hellaswag", "mmlu", "mmlu_stem"} <= set(json.loads(kept.read_text()))
    with pytest.raises(InputError) as refused:
        check_data(EvalConfig.model_validate({"tasks": ["helaswag", "pica", "mmlu"]}))
    helaswag, pica = [str(problem) for problem in refused.value.problems]
    assert helaswag.startswith("evals.tasks: there is no task 'helaswag'; did you mean hellaswag")
    assert "there is no task 'pica'" in pica
    assert " piqa " in pica
