"""Load the tasks and groups of a planned task with lm-eval, without a model."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.harness.planning import PlannedTask
from evals.harness.registry import suppress_lm_eval_output
from evals.harness.task_files import as_yaml
from evals.harness.task_tree import manager_for
from evals.results.result_store import safe_file_name
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import write_text


@dataclass(frozen=True, kw_only=True)
class Headline:
    """A task or a group with a main score, which counts as one benchmark.

    `members` are the names of the tasks of a group, or the task itself. `metric` and `filter` are
    those of the main score; None: the first of the task.
    """

    name: str
    members: list[str]
    is_group: bool
    metric: str | None
    filter: str | None


@dataclass(frozen=True, kw_only=True)
class LoadedTasks:
    """lm-eval's objects for the tasks and groups below one name, by their names.

    A group is a headline if its authors define an aggregate. Otherwise, it is a list of tasks, like
    a tag, and its members are headlines.
    """

    tasks: dict[str, Any]
    groups: dict[str, Any]
    headlines: list[Headline]


def load_tasks(task: PlannedTask, definitions: Path) -> LoadedTasks:
    """Return lm-eval's objects with their items, few-shot numbers and seed.

    The overrides that a group's authors set for its members are kept. The task file of a planned
    task with a definition is written to the folder `definitions`.

    Raises:
        InputError: the task or its data cannot be loaded, or the task cannot be scored here.
    """
    from lm_eval.tasks import TaskManager

    if task.definition is None:
        manager = manager_for(task.name, task.include_path)
    else:
        write_text(definitions / f"{safe_file_name(task.name)}.yaml", as_yaml(task.definition))
        manager = TaskManager(include_path=str(definitions), include_defaults=False)
    try:
        with suppress_lm_eval_output(), code_execution(is_allowed=task.allow_code_execution):
            loaded = manager.load([task.name])
    except Exception as error:  # Task files, data sets and the hub raise many types.
        raise InputError(_load_problem(task.name, error)) from error
    tasks, groups = loaded["tasks"], loaded["groups"]
    problems = [
        problem
        for name, one in tasks.items()
        for problem in _support_problems(one, name, allow_code=task.allow_code_execution)
    ]
    if problems:
        raise InputError(problems)
    for name, one in tasks.items():
        _set_num_fewshot(one, task.num_fewshot)
        problems += _fewshot_problems(one, name)
        one.set_fewshot_seed(seed=task.seed)
    roots = [groups[task.name]] if task.name in groups else list(tasks.values())
    headlines = [headline for root in roots for headline in _headlines(root, task)]
    problems += [problem for one in headlines for problem in _metric_problems(one, tasks, groups)]
    if problems:
        raise InputError(problems)
    return LoadedTasks(tasks=tasks, groups=groups, headlines=headlines)


@contextmanager
def code_execution(*, is_allowed: bool) -> Iterator[None]:
    """Let the metrics of Hugging Face's `evaluate` run generated code, if allowed."""
    if not is_allowed:
        yield
        return
    variable = "HF_ALLOW_CODE_EVAL"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _headlines(item: Any, planned: PlannedTask) -> list[Headline]:
    from lm_eval.api.group import Group

    if not isinstance(item, Group):
        name = item.task_name
        return [
            Headline(
                name=name,
                members=[name],
                is_group=False,
                metric=planned.main_metric,
                filter=planned.filter,
            )
        ]
    if not item.has_aggregation:
        return [headline for member in item for headline in _headlines(member, planned)]
    metric = planned.main_metric or item.aggregate_metric_list[0].metric
    filters = [one.filter_list or [] for one in item.aggregate_metric_list if one.metric == metric]
    return [
        Headline(
            name=item.name,
            members=list(dict.fromkeys(task.task_name for task in item.get_all_tasks())),
            is_group=True,
            metric=metric,
            filter=planned.filter or next((names[0] for names in filters if names), None),
        )
    ]


def _load_problem(name: str, error: Exception) -> Problem:
    if isinstance(error, ModuleNotFoundError):
        return Problem(
            message=f"task {name} needs the Python package {error.name}, which is not installed",
            where="evals.tasks",
            fix=f"pip install {error.name} on every node that scores, or remove the task",
        )
    first_line = (str(error).strip() or repr(error)).split("\n")[0]
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        fix = "allow access to the hub (it is switched off), or use local files"
    else:
        fix = "check the connection to the hub, or set evals.data_root to local files"
    return Problem(message=f"cannot load task {name}: {first_line}", fix=fix)


def _support_problems(task: Any, name: str, *, allow_code: bool) -> list[Problem]:
    problems = []
    if getattr(task, "UNSAFE_CODE", False) and not allow_code:
        problems.append(unsafe_code_problem(name))
    if getattr(task, "MULTIMODAL", False):
        problems.append(multimodal_problem(name))
    return problems


def unsafe_code_problem(name: str) -> Problem:
    """Return the problem of a task that executes generated code without permission."""
    return Problem(
        message=f"task {name} executes code that the model generates",
        where="evals.tasks",
        fix="run the sweep in a sandbox and set evals.allow_code_execution: true "
        "(docs/security.md), or remove the task",
    )


def multimodal_problem(name: str) -> Problem:
    """Return the problem of a task with images or sound."""
    return Problem(
        message=f"task {name} contains images or sound, but models are scored on text",
        where="evals.tasks",
        fix="remove the task",
    )


def _set_num_fewshot(task: Any, num_fewshot: int | None) -> None:
    """Set the number of few-shot examples as lm-eval's command line does.

    A number that is 0 in the task file is not changed.
    """
    default = task.get_config("num_fewshot")
    if num_fewshot is not None and default != 0:
        task.set_config("num_fewshot", num_fewshot)
    elif default is None:
        task.set_config("num_fewshot", 0)


def _fewshot_problems(task: Any, name: str) -> list[Problem]:
    num_fewshot = task.config.num_fewshot
    if not num_fewshot:
        return []
    # An item of the test split is not used as a few-shot example for itself.
    others = len(list(task.fewshot_docs())) - (task.fewshot_cfg.split == "test")
    if num_fewshot <= others:
        return []
    return [
        Problem(
            message=f"num_fewshot of {name} must be at most {others}, the number of available "
            f"examples, got {num_fewshot}",
            fix="reduce num_fewshot, or use a file with more items",
        )
    ]


def _metric_problems(
    headline: Headline, tasks: Mapping[str, Any], groups: Mapping[str, Any]
) -> list[Problem]:
    """Return the problems of the metric and the filter of a main score."""
    members = [tasks[name] for name in headline.members]
    if headline.is_group:
        metrics = [one.metric for one in groups[headline.name].aggregate_metric_list]
    else:
        metrics = list(members[0].aggregation())
    filters = list(dict.fromkeys(str(one.name) for task in members for one in task._filters))
    return [
        Problem(
            message=f"{kind} of {headline.name} must be one of {', '.join(known)}, got {chosen}",
            where="evals.tasks",
            fix=f"set {kind}: {known[0]}",
        )
        for kind, chosen, known in (
            ("metric", headline.metric, metrics),
            ("filter", headline.filter, filters),
        )
        if chosen is not None and chosen not in known
    ]
