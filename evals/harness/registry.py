"""Which names stand for tasks: ours are at hand, lm-eval's stand in thousands of its files."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args
from unittest import mock

from evals.config import JUDGED, EvalConfig, Group
from evals.harness.paper_suite import BENCHMARKS, expanded
from trainers.foundation.cache_dirs import cache_dir
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import write_text

_OWN = (*BENCHMARKS, *get_args(Group), *JUDGED)


def check_names(config: EvalConfig) -> None:
    """Return if each of the tasks is one of ours or one of lm-eval's.

    The names of lm-eval's are kept from one time to the next. They only ever let a name pass: one
    that is not among them is looked for in lm-eval itself.

    Raises:
        InputError: there are no such tasks, with the nearest names.
    """
    named = {task.name for task in expanded(config.tasks)} - set(BENCHMARKS)
    if not named or named <= _kept_names():
        return
    known = all_tasks().all_tasks
    _keep(known)
    unknown = sorted(named - set(known))
    problems = [problem for name in unknown for problem in unknown_task(name, known).problems]
    if problems:
        raise InputError(problems)


def unknown_task(name: str, known: Sequence[str]) -> InputError:
    """The error for a task that is neither ours nor among the `known` of lm-eval."""
    near = get_close_matches(name, list(dict.fromkeys([*_OWN, *known])), n=3, cutoff=0.5)
    return InputError(
        Problem(
            message=f"evals.tasks: there is no task {name!r}",
            fix=f"did you mean {' or '.join(near)}?"
            if near
            else f"known here are {', '.join(BENCHMARKS)}; `lm-eval ls tasks` lists all others",
        )
    )


@lru_cache(maxsize=1)
def all_tasks() -> Any:
    """lm-eval's manager of all its tasks, which reads some thousand files: 22 s on two cores."""
    from lm_eval.tasks import TaskManager

    with quiet_lm_eval():
        return TaskManager()


@contextmanager
def quiet_lm_eval() -> Iterator[None]:
    """Keep lm-eval and the data sets that it loads from writing to the terminal."""
    import datasets
    import lm_eval.api.task

    logger = logging.getLogger("lm_eval")
    level = logger.level
    bars = datasets.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        # It has no switch for the bar that it shows while it words the prompts.
        with mock.patch.object(lm_eval.api.task, "tqdm", lambda items, **_: items):
            yield
    finally:
        logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


def _names_file() -> Path:
    return cache_dir() / f"lm_eval-{version('lm_eval')}-tasks.json"


def _kept_names() -> set[str]:
    try:
        return set(json.loads(_names_file().read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return set()


def _keep(names: Sequence[str]) -> None:
    try:
        write_text(_names_file(), json.dumps(sorted(names)))
    except OSError as error:
        # Where no cache can be written it takes its time each time.
        logging.getLogger(__name__).info("lm-eval's task names are not kept: %s", error)
