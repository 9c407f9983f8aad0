"""Write folders of lm-eval task files with local data: Open LLM, MMLU, and a made-up group."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lm_eval
import yaml

from tests.evals.benchmark_files import FILES, NAMES, THINGS, write_lines

BUILT_IN = Path(lm_eval.__file__).parent / "tasks"
SUBJECTS = {
    "anatomy": 4, "astronomy": 7, "management": 3, "virology": 5, "sociology": 4,
    "econometrics": 6, "philosophy": 5, "prehistory": 3,
}  # fmt: skip


def write_open_llm(folder: Path) -> Path:
    """Write lm-eval's groups openllm and mmlu, and eight subjects, over a few local items.

    The group open_llm_tasks has the members of openllm that are single tasks.
    """
    (open_llm,) = BUILT_IN.rglob("openllm.yaml")
    shutil.copy(open_llm, folder)
    members = yaml.safe_load(open_llm.read_text())["task"]
    tasks = [member for member in members if member["task"] not in ("truthfulqa", "mmlu")]
    _write_yaml(folder, "open_llm_tasks", {"group": "open_llm_tasks", "task": tasks})
    _write_task(folder, "arc/arc_challenge.yaml", "arc_challenge", {
        "test": [FILES["arc_challenge/test.jsonl"](n) for n in range(6)],
        "train": [FILES["arc_challenge/test.jsonl"](n) for n in range(7, 37)],
    })  # fmt: skip
    _write_task(folder, "hellaswag/hellaswag.yaml", "hellaswag", {
        "validation": [_hellaswag(n) for n in range(5)],
        "train": [_hellaswag(n) for n in range(5, 17)],
    })  # fmt: skip
    for name in ("truthfulqa_mc1", "truthfulqa_mc2"):
        rows = [FILES["truthfulqa/multiple_choice_v1.jsonl"](n) for n in range(6)]
        _write_task(folder, f"truthfulqa/{name}.yaml", name, {"validation": rows})
    _write_task(folder, "winogrande/default.yaml", "winogrande", {
        "validation": [FILES["winogrande/validation.jsonl"](n) for n in range(6)],
        "train": [FILES["winogrande/validation.jsonl"](n) for n in range(6, 13)],
    })  # fmt: skip
    _write_task(folder, "gsm8k/gsm8k.yaml", "gsm8k", {
        "test": [_gsm8k(n) for n in range(3)], "train": [_gsm8k(n) for n in range(3, 10)],
    })  # fmt: skip
    for path in (BUILT_IN / "mmlu/default").glob("_mmlu*.yaml"):
        shutil.copy(path, folder)
    for number, (subject, count) in enumerate(SUBJECTS.items()):
        rows = [_mmlu(n + 3 * number) for n in range(count + 5)]
        file = f"mmlu/default/mmlu_{subject}.yaml"
        _write_task(folder, file, f"mmlu_{subject}", {"test": rows[5:], "dev": rows[:5]})
    return folder


def write_made_up_group(folder: Path) -> Path:
    """Write a group with two aggregates, overrides, a subgroup, and tasks of unequal size."""
    for name, count in (("short", 3), ("long", 8), ("other", 5)):
        rows = [_quiz(n + count) for n in range(count)]
        _write_yaml(folder, name, {
            "task": name, **_json_data(folder, name, {"test": rows}), "test_split": "test",
            "output_type": "multiple_choice", "doc_to_text": "{{prompt}}",
            "doc_to_choice": "choices", "doc_to_target": "label", "num_fewshot": 1,
            "metric_list": [
                {"metric": metric, "aggregation": "mean", "higher_is_better": True}
                for metric in ("acc", "acc_norm")
            ],
        })  # fmt: skip
    _write_yaml(folder, "inner", {
        "group": "inner", "task": ["long", {"task": "other", "doc_to_text": "Q: {{prompt}}\nA:"}],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
    })  # fmt: skip
    _write_yaml(folder, "made_up", {
        "group": "made_up",
        "task": [{"task": "short", "num_fewshot": 2}, {"group": "inner", "num_fewshot": 0}],
        "aggregate_metric_list": [
            {"metric": "acc_norm", "weight_by_size": False},
            {"metric": "acc", "weight_by_size": True},
        ],
        "metadata": {"version": 7},
    })  # fmt: skip
    return folder


def _write_task(
    folder: Path, built_in: str, name: str, splits: Mapping[str, Sequence[Any]]
) -> None:
    content = {"include": str(BUILT_IN / built_in), "task": name}
    _write_yaml(folder, name, content | _json_data(folder, name, splits))


def _json_data(folder: Path, name: str, splits: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    files = {
        split: str(write_lines(folder / "data" / f"{name}_{split}.jsonl", rows))
        for split, rows in splits.items()
    }
    return {
        "dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files},
    }  # fmt: skip


def _write_yaml(folder: Path, name: str, content: Mapping[str, Any]) -> None:
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(dict(content), sort_keys=False))


def _quiz(n: int) -> dict[str, Any]:
    return {
        "prompt": f"What does {NAMES[n % 6]} want?",
        "choices": [THINGS[(n + k) % 6] for k in range(2 + n % 3)],
        "label": n % 2,
    }


def _mmlu(n: int) -> dict[str, Any]:
    choices = [THINGS[(n + k) % 6] for k in range(4)]
    return {
        "question": f"What does {NAMES[n % 6]} need, case {n}?",
        "choices": choices,
        "answer": n % 4,
    }


def _hellaswag(n: int) -> dict[str, Any]:
    return {
        "activity_label": "Cooking",
        "ctx_a": f"{NAMES[n % 6]} opens the door.",
        "ctx_b": "then he",
        "endings": [f"takes {THINGS[(n + k) % 6]}." for k in range(4)],
        "label": str(n % 4),
    }


def _gsm8k(n: int) -> dict[str, Any]:
    return {"question": f"What is {n} plus 2?", "answer": f"It is {n} + 2.\n#### {n + 2}"}
