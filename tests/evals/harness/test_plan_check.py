"""Tasks that cannot be scored are reported before training, all at once and without a model."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from evals.config import EvalConfig
from evals.harness.plan_check import check_tasks
from tests.evals.benchmark_files import write_data_root, write_lines
from trainers.foundation.errors import InputError

# Importing lm-eval takes seconds.
pytestmark = pytest.mark.slow

NONE = dict.fromkeys(("heldout", "heldout_choice", "heldout_exact_match", "heldout_chrf"))


def write_task(folder: Path, name: str, functions: str = "", **changes: Any) -> None:
    """Write a task over three local items; `functions` is further text of its file."""
    file = write_lines(folder / f"{name}.jsonl", [{"q": f"{n}?", "a": f"{n}"} for n in range(3)])
    content = {
        "task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test", "output_type": "generate_until", "doc_to_text": "{{q}}",
        "doc_to_target": "{{a}}",
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    text = yaml.safe_dump(content | changes, sort_keys=False) + functions
    (folder / f"{name}.yaml").write_text(text)


def config(folder: Path, *tasks: Any, **settings: Any) -> EvalConfig:
    return EvalConfig.model_validate(
        NONE | {"tasks": list(tasks), "include_path": str(folder)} | settings
    )


def problems_of(config: EvalConfig) -> list[str]:
    with pytest.raises(InputError) as raised:
        check_tasks(config)
    return [str(problem) for problem in raised.value.problems]


def test_every_kind_of_task_that_cannot_be_scored_is_in_one_message(tmp_path: Path) -> None:
    write_task(tmp_path, "code", unsafe_code=True)
    write_task(tmp_path, "pictures", doc_to_image=["image"])
    write_task(tmp_path, "extra", functions="process_docs: !function needs_extra.process\n")
    (tmp_path / "needs_extra.py").write_text("import not_installed_here\n")
    write_task(tmp_path, "elsewhere", dataset_path="someone/unknown", dataset_kwargs=None)
    write_task(tmp_path, "fine")
    metric = {"name": "fine", "metric": "acc"}
    names = ["code", "pictures", "extra", "elsewhere", "arc_chalenge", metric]
    assert problems_of(config(tmp_path, *names)) == [
        "evals.tasks: unknown task 'arc_chalenge'; did you mean arc_challenge or arc_eu_challenge"
        " or arc_challenge_mt?",
        "evals.tasks: task code executes code that the model generates; run the sweep in a sandbox"
        " and set evals.allow_code_execution: true (docs/security.md), or remove the task",
        "evals.tasks: task pictures contains images or sound, but models are scored on text;"
        " remove the task",
        "evals.tasks: task elsewhere needs data sets that are not on this machine: someone/unknown;"
        " run plw plan once without --offline and HF_HUB_OFFLINE, or use local files",
        "evals.tasks: task extra needs the Python package not_installed_here, which is not"
        " installed; pip install not_installed_here on every node that scores, or remove the task",
        "evals.tasks: metric of fine must be one of exact_match, got acc; set metric: exact_match",
    ]


def test_tasks_with_all_that_they_need_pass_and_code_is_run_only_if_allowed(
    tmp_path: Path,
) -> None:
    write_task(tmp_path, "code", unsafe_code=True)
    data_root = str(write_data_root(tmp_path / "data"))
    custom = write_lines(tmp_path / "mine.jsonl", [{"prompt": "a", "target": "b"}] * 2)
    benchmark = {"name": "mine", "path": str(custom), "kind": "bleu", "num_fewshot": 1}
    settings: dict[str, Any] = {"data_root": data_root, "benchmarks": [benchmark]}
    check_tasks(config(tmp_path, "code", "piqa", allow_code_execution=True, **settings))
    benchmark["num_fewshot"] = 2
    (problem,) = problems_of(config(tmp_path, "piqa", **settings))
    assert problem.startswith("num_fewshot of mine must be at most 1, ")


def test_a_task_in_two_entries_is_reported_next_to_its_missing_data(tmp_path: Path) -> None:
    write_task(tmp_path, "elsewhere", dataset_path="someone/unknown", dataset_kwargs=None)
    group = {"group": "both", "task": ["elsewhere"]}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(group))
    problems = problems_of(config(tmp_path, "both", "elsewhere"))
    assert [problem.split(";")[0] for problem in problems] == [
        "evals.tasks: task both needs data sets that are not on this machine: someone/unknown",
        "evals.tasks: task elsewhere needs data sets that are not on this machine: someone/unknown",
        "evals.tasks: elsewhere would be scored twice: by both and by elsewhere",
    ]


def test_data_sets_are_listed_before_they_are_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    for name in ("one", "two"):
        write_task(tmp_path, name, dataset_path="someone/unknown", dataset_name=name,
                   dataset_kwargs=None)  # fmt: skip
    listed: list[str] = []
    with pytest.raises(InputError, match="cannot load task one: "):
        check_tasks(config(tmp_path, "one", "two"), listed.extend)
    assert listed == ["someone/unknown (one)", "someone/unknown (two)"]


def test_a_template_that_ends_the_sentences_of_winogrande_is_a_warning(tmp_path: Path) -> None:
    root = write_data_root(tmp_path)
    warnings: list[str] = []
    for template in ("none", "checkpoint"):
        chosen = config(tmp_path, "winogrande", "piqa", data_root=str(root), task_template=template)
        check_tasks(chosen, on_warning=warnings.append)
    (warning,) = warnings
    assert warning.startswith("the choices of task winogrande are beginnings of a sentence")
