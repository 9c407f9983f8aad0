"""Task names: the built-in ones, and those of lm-eval with a cache of their list."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from evals.config import JUDGED_BENCHMARKS, EvalConfig, Group
from evals.harness.paper_suite import BENCHMARKS, expand_groups
from trainers.foundation.cache_dirs import cache_dir
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import write_text

_BUILT_IN = (*BENCHMARKS, *get_args(Group), *JUDGED_BENCHMARKS)


def check_task_names(config: EvalConfig) -> None:
    """Check that each task is built in or belongs to lm-eval.

    lm-eval's names are cached. The cache is only used to accept names. A name that is missing in
    the cache is looked up in lm-eval itself.

    Raises:
        InputError: a task does not exist; the error suggests the nearest names.
    """
    names = {task.name for task in expand_groups(config.tasks)} - set(BENCHMARKS)
    if not names:
        # lm-eval may not be installed.
        return
    own: set[str] = set()
    if config.include_path is not None:
        own = set(task_manager(config.include_path, include_defaults=False).all_tasks)
    if names <= own | _cached_names():
        return
    of_lm_eval = task_manager().all_tasks
    _cache_names(of_lm_eval)
    known = [*sorted(own), *of_lm_eval]
    unknown = sorted(names - set(known))
    problems = [problem for name in unknown for problem in unknown_task_error(name, known).problems]
    if problems:
        raise InputError(problems)


def unknown_task_error(name: str, known: Sequence[str]) -> InputError:
    """Return the error for a task that is neither built in nor in `known`."""
    near = get_close_matches(name, list(dict.fromkeys([*_BUILT_IN, *known])), n=3, cutoff=0.5)
    return InputError(
        Problem(
            message=f"evals.tasks: unknown task {name!r}",
            fix=f"did you mean {' or '.join(near)}?"
            if near
            else f"built in are {', '.join(BENCHMARKS)}; `lm-eval ls tasks` lists all others",
        )
    )


@lru_cache(maxsize=4)
def task_manager(include_path: str | None = None, *, include_defaults: bool = True) -> Any:
    """Return lm-eval's task manager, for its own task files and those in `include_path`.

    lm-eval has thousands of files, which take up to 22 s to read on two cores.
    """
    from lm_eval.tasks import TaskManager

    with suppress_lm_eval_output():
        manager = TaskManager(include_path=include_path, include_defaults=include_defaults)
    manager._factory.build = partial(_build_with_own_name, manager._factory.build)
    return manager


def _build_with_own_name(
    build: Callable[..., Any], entry: Any, *, overrides: dict[str, Any] | None, registry: Any
) -> Any:
    """Build a task, group or tag with the overrides of its group, but under its own name.

    lm-eval 0.4.13 also passes on the name in the group's list: in openllm, all subjects of mmlu
    would get the name mmlu, and only the last would be scored.
    """
    from lm_eval.tasks._index import Kind

    if overrides:
        overrides = {k: v for k, v in overrides.items() if k not in ("task", "group")}
        if entry.kind in (Kind.TASK, Kind.PY_TASK):
            overrides["task"] = entry.name
    return build(entry, overrides=overrides, registry=registry)


@contextmanager
def suppress_lm_eval_output() -> Iterator[None]:
    """Hide the terminal output of lm-eval and datasets."""
    import datasets
    import lm_eval.api.task

    logger = logging.getLogger("lm_eval")
    level = logger.level
    shows_progress = datasets.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    # lm-eval has no setting to hide the progress bar of building prompts.
    task_module: Any = lm_eval.api.task
    tqdm = task_module.tqdm
    task_module.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        task_module.tqdm = tqdm
        logger.setLevel(level)
        if shows_progress:
            datasets.enable_progress_bars()


def _names_file() -> Path:
    return cache_dir() / f"lm_eval-{version('lm_eval')}-tasks.json"


def _cached_names() -> set[str]:
    try:
        return set(json.loads(_names_file().read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return set()


def _cache_names(names: Sequence[str]) -> None:
    try:
        write_text(_names_file(), json.dumps(sorted(names)))
    except OSError as error:
        # Without a cache, every check reads lm-eval's files.
        logging.getLogger(__name__).info("cannot cache lm-eval's task names: %s", error)
