"""Which tasks an evaluation runs, with everything that their scores depend on.

lm-eval's task files are read, but neither data nor a model is loaded.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evals.config import BenchmarkConfig, EvalConfig, Group, TaskConfig, TaskTemplate
from evals.harness.custom_tasks import recorded_definition, task_definition
from evals.harness.paper_suite import (
    BENCHMARKS,
    Benchmark,
    benchmark_group,
    expand_groups,
    file_digests,
    include_files,
)
from evals.harness.task_files import Definition, paper_definition
from evals.harness.task_tree import manager_for, task_files
from trainers.foundation.errors import InputError, Problem

# Increase it when the scores or samples of the same responses may change. 1: the members of a group
# had no settings of the group; overlap was computed on prompts.
TASKS_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class PlannedTask:
    """A benchmark with all settings of its evaluation: a task, or a group or tag of tasks.

    `definition` is the content of its lm-eval task file; None for a task that lm-eval finds by its
    name. `settings` contains everything that the result depends on, JSON-serialisable. `group`,
    `main_metric` and `filter` are None if they depend on the task.
    """

    name: str
    definition: Definition | None
    settings: dict[str, Any]
    num_fewshot: int | None
    limit: int | None
    seed: int
    template: TaskTemplate
    group: Group | None
    main_metric: str | None
    filter: str | None
    include_path: str | None
    allow_code_execution: bool
    system_instruction: str | None
    think_end_token: str | None


def plan_tasks(config: EvalConfig) -> list[PlannedTask]:
    """Return all configured tasks and custom benchmarks; the paper's groups are expanded.

    Raises:
        InputError: a task does not exist, is part of two entries, or its local file is missing.
    """
    tasks = expand_groups(config.tasks)
    problems = duplicate_problems(tasks, config)
    if problems:
        raise InputError(problems)
    planned = [plan_task(task, config) for task in tasks]
    return planned + [plan_custom_task(custom, config) for custom in config.benchmarks]


def duplicate_problems(tasks: Sequence[TaskConfig], config: EvalConfig) -> list[Problem]:
    """Return a problem for each task that belongs to several entries of `tasks`.

    Raises:
        InputError: a name is unknown.
    """
    entries: dict[str, list[str]] = defaultdict(list)
    for task in tasks:
        names = [task.name]
        if task.name not in BENCHMARKS:
            manager = manager_for(task.name, config.include_path)
            names = list(dict.fromkeys(one.name for one in task_files(manager, task.name)))
        for name in names:
            entries[name].append(task.name)
    for custom in config.benchmarks:
        entries[custom.name].append(custom.name)
    twice: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, owners in entries.items():
        if len(owners) > 1:
            twice[tuple(owners)].append(name)
    return [
        Problem(
            message=f"{_listed(names)} would be scored twice: by {' and by '.join(owners)}",
            where="evals.tasks",
            fix=f"remove {owners[-1]}, or list the members of the group that you need",
        )
        for owners, names in twice.items()
    ]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more tasks"


def plan_task(task: TaskConfig, config: EvalConfig) -> PlannedTask:
    """Return a task, group or tag of lm-eval, or a benchmark of the paper, with its settings."""
    benchmark = BENCHMARKS.get(task.name)
    if benchmark is not None:
        return _plan_paper_task(benchmark, task, config)
    return _plan(
        task.name,
        config,
        num_fewshot=task.num_fewshot,
        limit=task.limit,
        main_metric=task.metric,
        filter=task.filter,
        identity={"files": file_digests(include_files(config.include_path))},
    )


def _plan_paper_task(benchmark: Benchmark, task: TaskConfig, config: EvalConfig) -> PlannedTask:
    data_root = None if config.data_root is None else Path(config.data_root)
    files = [] if data_root is None else [benchmark.data_file(data_root)]
    fewshot_file = None if data_root is None else benchmark.fewshot_file(data_root)
    files += [fewshot_file[1]] if fewshot_file is not None else []
    return _plan(
        benchmark.name,
        config,
        definition=paper_definition(benchmark, data_root),
        num_fewshot=task.num_fewshot,
        limit=task.limit,
        group=benchmark.group,
        main_metric=task.metric or benchmark.main_metric,
        filter=task.filter,
        identity={"files": file_digests(files)},
    )


def plan_custom_task(custom: BenchmarkConfig, config: EvalConfig) -> PlannedTask:
    """Return a custom benchmark with its settings."""
    return _plan(
        custom.name,
        config,
        definition=task_definition(custom),
        num_fewshot=custom.num_fewshot,
        limit=custom.limit,
        group=benchmark_group(custom),
        main_metric="acc_norm" if custom.kind == "multiple_choice" else custom.kind,
        identity={
            "files": file_digests([Path(custom.path)]),
            "definition": recorded_definition(custom),
        },
    )


def _plan(
    name: str,
    config: EvalConfig,
    *,
    num_fewshot: int | None,
    limit: int | None,
    definition: Definition | None = None,
    group: Group | None = None,
    main_metric: str | None = None,
    filter: str | None = None,
    identity: Mapping[str, Any] = MappingProxyType({}),
) -> PlannedTask:
    limit = limit or config.limit
    settings = {
        "tasks_version": TASKS_VERSION,
        "task": name,
        "num_fewshot": num_fewshot,
        "limit": limit,
        "metric": main_metric,
        "filter": filter,
        "seed": config.seed,
        "template": config.task_template,
        "system_instruction": config.system_instruction,
        "think_end_token": config.think_end_token,
        "lm_eval": version("lm_eval"),
        **identity,
    }
    return PlannedTask(
        name=name,
        definition=definition,
        settings=settings,
        num_fewshot=num_fewshot,
        limit=limit,
        seed=config.seed,
        template=config.task_template,
        group=group,
        main_metric=main_metric,
        filter=filter,
        include_path=config.include_path,
        allow_code_execution=config.allow_code_execution,
        system_instruction=config.system_instruction,
        think_end_token=config.think_end_token,
    )
