"""Load every task without a model, so that a sweep reports problems before it trains."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.config import EvalConfig, TaskConfig
from evals.harness.loading import LoadedTasks, load_tasks, multimodal_problem, unsafe_code_problem
from evals.harness.paper_suite import BENCHMARKS, expand_groups
from evals.harness.planning import (
    PlannedTask,
    duplicate_problems,
    plan_custom_task,
    plan_task,
)
from evals.harness.preflight import check_custom_benchmark, check_installed, check_paper_files
from evals.harness.registry import check_task_names
from evals.harness.task_files import builtin_file
from evals.harness.task_tree import TaskFile, manager_for, task_files
from trainers.foundation.errors import InputError, Problem

OnDownload = Callable[[Sequence[str]], None]
"""Called with the data sets that are not on this machine, before the first is downloaded."""
OnWarning = Callable[[str], None]
"""Called with a warning about a task that can be scored."""

# Names of `datasets` for files, which need no download.
_FILE_FORMATS = ("json", "csv", "parquet", "text", "arrow", "imagefolder", "audiofolder")


def check_tasks(
    config: EvalConfig,
    on_download: OnDownload | None = None,
    on_warning: OnWarning | None = None,
) -> None:
    """Load all tasks and custom benchmarks of `config`, without a model.

    Task files come first: unknown names, duplicates, code execution and images need no data. Then
    the data sets are loaded, and downloaded unless HF_HUB_OFFLINE is 1. Only caches are written.

    Raises:
        InputError: a task is unknown, occurs twice, executes code without permission, has images,
            or needs a package, data or settings that do not exist; lists all problems.
    """
    check_installed(config)
    problems = _problems_of(check_task_names, config)
    known: list[TaskConfig] = []
    planned: list[PlannedTask] = []
    missing: list[str] = []
    unknown = {problem.message for problem in problems}
    for task in expand_groups(config.tasks):
        found: list[TaskFile] = []
        errors = _problems_of(check_paper_files, task, config)
        try:
            found = _task_files(task, config)
            known.append(task)
        except InputError as error:
            errors += error.problems
        errors += _unsupported(found, allow_code=config.allow_code_execution)
        not_here = _missing_data_sets(found)
        if not errors and not_here and os.environ.get("HF_HUB_OFFLINE") == "1":
            errors.append(_offline_problem(task.name, not_here))
        problems += [error for error in errors if error.message not in unknown]
        if not errors:
            planned.append(plan_task(task, config))
            missing += not_here
    for custom in config.benchmarks:
        errors = _problems_of(check_custom_benchmark, custom)
        problems += errors
        if not errors:
            planned.append(plan_custom_task(custom, config))
    problems += duplicate_problems(known, config)
    if missing and on_download is not None:
        on_download(list(dict.fromkeys(missing)))
    with tempfile.TemporaryDirectory() as folder:
        for one in planned:
            try:
                loaded = load_tasks(one, Path(folder))
            except InputError as error:
                problems += error.problems
                continue
            for warning in _template_warnings(one, loaded):
                if on_warning is not None:
                    on_warning(warning)
    if problems:
        raise InputError(problems)


def _template_warnings(planned: PlannedTask, loaded: LoadedTasks) -> Iterator[str]:
    """Yield a warning for each task whose choices are parts of its prompts, as in WinoGrande."""
    if planned.template != "checkpoint":
        return
    for name, task in loaded.tasks.items():
        if getattr(task, "multiple_input", 0):
            yield (
                f"the choices of task {name} are beginnings of a sentence, which the checkpoint's"
                " template ends before the model continues it; score it with evals.task_template:"
                " none"
            )


def _problems_of(check: Callable[..., object], *arguments: Any) -> list[Problem]:
    try:
        check(*arguments)
    except InputError as error:
        return list(error.problems)
    return []


def _task_files(task: TaskConfig, config: EvalConfig) -> list[TaskFile]:
    benchmark = BENCHMARKS.get(task.name)
    if benchmark is None:
        return task_files(manager_for(task.name, config.include_path), task.name)
    if config.data_root is not None:
        return []
    from lm_eval.tasks._yaml_loader import load_yaml

    return [TaskFile(name=task.name, config=load_yaml(builtin_file(benchmark), resolve_func=False))]


def _unsupported(files: Sequence[TaskFile], *, allow_code: bool) -> Iterator[Problem]:
    for file in files:
        if file.config.get("unsafe_code") and not allow_code:
            yield unsafe_code_problem(file.name)
        if file.config.get("doc_to_image") or file.config.get("doc_to_audio"):
            yield multimodal_problem(file.name)


def _missing_data_sets(files: Sequence[TaskFile]) -> list[str]:
    """Return the data sets that the cache of `datasets` does not have."""
    names = dict.fromkeys(name for file in files if (name := _hub_data_set(file.config)))
    return [_described(*name) for name in names if not _is_cached(*name)]


def _hub_data_set(config: Mapping[str, Any]) -> tuple[str, str | None] | None:
    path = config.get("dataset_path")
    if not isinstance(path, str) or path in _FILE_FORMATS or Path(path).exists():
        return None
    return path, config.get("dataset_name")


def _is_cached(path: str, name: str | None) -> bool:
    import datasets

    folder = Path(datasets.config.HF_DATASETS_CACHE) / path.replace("/", "___")
    return (folder / (name or "default")).is_dir()


def _described(path: str, name: str | None) -> str:
    return path if name is None else f"{path} ({name})"


def _offline_problem(task: str, missing: Sequence[str]) -> Problem:
    shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    return Problem(
        message=f"task {task} needs data sets that are not on this machine: {shown}",
        where="evals.tasks",
        fix="run plw plan once without --offline and HF_HUB_OFFLINE, or use local files",
    )
