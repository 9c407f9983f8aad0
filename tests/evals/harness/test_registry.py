"""Task names: unknown names with suggestions, and the cache of lm-eval's names."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from evals.config import EvalConfig
from evals.harness.planning import plan_tasks
from evals.harness.preflight import check_benchmarks
from evals.harness.registry import unknown_task_error
from trainers.foundation.errors import InputError


def write_names(folder: Path, *names: str) -> Path:
    path = folder / f"lm_eval-{version('lm_eval')}-tasks.json"
    path.write_text(json.dumps(names))
    return path


def test_an_unknown_task_is_reported_with_the_nearest_names() -> None:
    assert str(unknown_task_error("arc_chalenge", ["arc_easy", "arc_challenge", "piqa"])) == (
        "evals.tasks: unknown task 'arc_chalenge'; did you mean arc_challenge or arc_easy?"
    )
    assert str(unknown_task_error("alpacaeval", [])).endswith("; did you mean alpaca_eval?")
    assert str(unknown_task_error("multiple_choise", [])).endswith(
        "; did you mean multiple_choice?"
    )


@pytest.mark.parametrize("names", [["piqa", "multiple_choice"], ["hellaswag", "piqa"]])
def test_built_in_and_cached_names_need_no_lm_eval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    monkeypatch.setenv("PLW_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    write_names(tmp_path, "hellaswag", "mmlu")
    check_benchmarks(EvalConfig.model_validate({"tasks": names}))


@pytest.mark.slow
def test_a_name_that_is_not_cached_is_looked_up_in_lm_eval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLW_CACHE_DIR", str(tmp_path))
    cache = write_names(tmp_path, "mmlu")
    check_benchmarks(EvalConfig.model_validate({"tasks": ["hellaswag"]}))
    assert {"hellaswag", "mmlu", "mmlu_stem"} <= set(json.loads(cache.read_text()))
    with pytest.raises(InputError) as raised:
        check_benchmarks(EvalConfig.model_validate({"tasks": ["helaswag", "pica", "mmlu"]}))
    helaswag, pica = [str(problem) for problem in raised.value.problems]
    assert helaswag.startswith("evals.tasks: unknown task 'helaswag'; did you mean hellaswag")
    assert "unknown task 'pica'" in pica
    assert " piqa " in pica
    (tmp_path / "mine.yaml").write_text("task: my_quiz\ndataset_path: json\n")
    mine = {"tasks": ["my_quizz"], "include_path": str(tmp_path)}
    with pytest.raises(InputError, match="unknown task 'my_quizz'; did you mean my_quiz"):
        check_benchmarks(EvalConfig.model_validate(mine))
    with pytest.raises(InputError, match="unknown task 'arc_esy'; did you mean arc_easy"):
        plan_tasks(EvalConfig.model_validate({"tasks": ["arc_esy"]}))
