"""The tasks below a name of lm-eval, read from the task files without loading data or a model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from evals.harness.registry import task_manager, unknown_task_error

Config = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class TaskFile:
    """A task without members, with the content of its file and the overrides of its groups.

    Functions of the file are not resolved, so none of its Python modules is imported.
    """

    name: str
    config: Config


@lru_cache(maxsize=8)
def manager_for(name: str, include_path: str | None) -> Any:
    """Return the lm-eval task manager that knows `name` and all its members.

    lm-eval's own files take 20 s to read. They are left out if `include_path` has all that is
    needed.

    Raises:
        InputError: neither the folder `include_path` nor lm-eval has the task.
    """
    if include_path is not None:
        manager = task_manager(include_path, include_defaults=False)
        if name in manager.task_index and all(
            task.name in manager.task_index for task in task_files(manager, name)
        ):
            return manager
    manager = task_manager(include_path)
    if name not in manager.task_index:
        raise unknown_task_error(name, manager.all_tasks)
    return manager


def task_files(manager: Any, name: str) -> list[TaskFile]:
    """Return the tasks of a task, group or tag, in lm-eval's order."""
    return list(_tasks(manager.task_index, name, {}))


def _tasks(index: Mapping[str, Any], name: str, overrides: Config) -> Iterator[TaskFile]:
    from lm_eval.tasks._index import Kind

    entry = index.get(name)
    if entry is None:
        yield TaskFile(name=name, config=overrides)
    elif entry.kind == Kind.TAG:
        for task in sorted(entry.tags):
            yield from _tasks(index, task, overrides)
    elif entry.kind == Kind.GROUP:
        yield from _members(index, entry.cfg, overrides)
    else:
        yield TaskFile(name=name, config={**(entry.cfg or {}), **overrides})


def _members(index: Mapping[str, Any], group: Config, overrides: Config) -> Iterator[TaskFile]:
    from lm_eval.tasks._factory import GROUP_FIELD_NAMES

    settings = {key: value for key, value in group.items() if key not in GROUP_FIELD_NAMES}
    overrides = {**settings, **overrides}
    members = group.get("task") or []
    for member in members if isinstance(members, list) else [members]:
        item = {"task": member} if isinstance(member, str) else member
        name = item.get("group") or item.get("task")
        if item.get("group") and name not in index:
            yield from _members(index, item, overrides)
        elif name is not None:
            own = {key: value for key, value in item.items() if key not in ("group", "task")}
            yield from _tasks(index, name, {**overrides, **own})
