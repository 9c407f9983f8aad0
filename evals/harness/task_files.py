"""Contents of task files for lm-eval: the paper's benchmarks, and any definition as YAML."""

import json
from pathlib import Path
from typing import Any

from evals.harness.custom_tasks import FunctionTag
from evals.harness.paper_suite import Benchmark

Definition = dict[str, Any]


def as_yaml(definition: Definition) -> str:
    """Return a task file for lm-eval: JSON, which is valid YAML, with function tags."""
    return "".join(f"{key}: {_yaml_value(value)}\n" for key, value in definition.items())


def builtin_file(benchmark: Benchmark) -> Path:
    """Return lm-eval's own task file of a benchmark."""
    import lm_eval

    assert lm_eval.__file__ is not None
    return Path(lm_eval.__file__).parent / "tasks" / benchmark.definition


def paper_definition(benchmark: Benchmark, data_root: Path | None) -> Definition:
    """Return a task file that includes lm-eval's own, with the items from `data_root`, if given.

    Raises:
        InputError: the file with the items does not exist.
    """
    builtin = builtin_file(benchmark)
    definition: Definition = {"include": str(builtin), "task": benchmark.name, "tag": None}
    if data_root is None:
        return definition
    fewshot_file = benchmark.fewshot_file(data_root)
    # If few-shot examples come from the same file, the split must be a test split. Only then does
    # lm-eval exclude an item from its own prompt.
    split = "test" if fewshot_file is None else benchmark.split
    files: dict[str, str] = {split: str(benchmark.data_file(data_root).absolute())}
    if fewshot_file is not None:
        files[fewshot_file[0]] = str(fewshot_file[1].absolute())
    return definition | {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files},
        "training_split": "train" if "train" in files else None,
        "validation_split": "validation" if "validation" in files else None,
        "test_split": "test" if "test" in files else None,
        "fewshot_split": fewshot_file[0] if fewshot_file is not None else split,
    }


def _yaml_value(value: Any) -> str:
    if isinstance(value, FunctionTag):
        return f"!function {value}"
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)}: {_yaml_value(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml_value, value))}]"
    return json.dumps(value)
