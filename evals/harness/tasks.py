"""Benchmarks taken through lm-eval's own tasks and evaluator, with our model inside.

Source: EleutherAI/lm-evaluation-harness 0.4, whose prompts, filters and metrics these are.
"""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evals.config import BenchmarkConfig, EvalConfig, Group, TaskConfig, TaskTemplate
from evals.engine.batching import Progress
from evals.engine.loading import LoadedModel
from evals.harness.custom_tasks import Function, recorded_definition, task_definition
from evals.harness.paper_suite import BENCHMARKS, Benchmark, expanded, group_of
from evals.harness.registry import all_tasks, quiet_lm_eval, unknown_task
from evals.harness.results import task_measured
from evals.results.measurement import Measured
from evals.results.response_log import Answers
from evals.results.result_store import file_name
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import sha256_of, write_text

Definition = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PlannedTask:
    """A benchmark as it will be taken.

    `definition` is its task file for lm-eval, None for one that lm-eval brings itself; `settings`
    what its outcome depends on, ready for JSON. `group` and `main_metric` are None where the task
    itself decides.
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


def planned_tasks(config: EvalConfig) -> list[PlannedTask]:
    """All tasks and benchmarks of one's own, groups of lm-eval as their tasks.

    Raises:
        InputError: there is no such task, or its local file is missing.
    """
    found: list[PlannedTask] = []
    for task in expanded(config.tasks):
        benchmark = BENCHMARKS.get(task.name)
        if benchmark is not None:
            found.append(_of_paper(benchmark, task, config))
        else:
            found += [_of_lm_eval(name, task, config) for name in _leaves(task.name)]
    found += [_of_user(own, config) for own in config.benchmarks]
    return found


def measure_task(
    loaded: LoadedModel,
    task: PlannedTask,
    *,
    batch_size: int | None,
    answers: Answers,
    definitions: Path,
    on_progress: Progress,
) -> Measured:
    """The scores of a benchmark: its main one, and the others beside it.

    What the model answers goes to `answers` at once, the task file for lm-eval to `definitions`.

    Raises:
        InputError: the task or its data cannot be loaded, or an item does not fit the model.
        TrainingError: the model's log-probabilities are not finite.
    """
    from evals.harness.lm import BenchmarkModel

    model = BenchmarkModel(
        loaded,
        answers,
        batch_size=batch_size,
        in_template=task.template == "checkpoint",
        seed=task.seed,
        on_progress=on_progress,
    )
    multiturn = loaded.template.name == "chat"
    measured = evaluate(task, model, definitions=definitions, multiturn=multiturn)
    answers.discard()
    return measured


def evaluate(task: PlannedTask, model: Any, *, definitions: Path, multiturn: bool) -> Measured:
    """What lm-eval's evaluator makes of a task with `model`, an lm_eval.api.model.LM.

    Raises:
        InputError: the task or its data cannot be loaded.
    """
    from lm_eval import evaluator

    with quiet_lm_eval():
        loaded_task = load_task(task, definitions)
        results = evaluator.evaluate(
            model,
            {"tasks": {task.name: loaded_task}},
            limit=task.limit,
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=task.template == "checkpoint",
            fewshot_as_multiturn=multiturn,
        )
    return task_measured(
        loaded_task,
        results,
        name=task.name,
        group=task.group,
        main_metric=task.main_metric,
        seed=task.seed,
        signature={
            "num_fewshot": loaded_task.config.num_fewshot,
            "limit": task.limit,
            "seed": task.seed,
            "template": task.template,
            "lm_eval": version("lm_eval"),
        },
    )


def load_task(task: PlannedTask, definitions: Path) -> Any:
    """lm-eval's task object, with its items, few-shot number and seed.

    Raises:
        InputError: it or its data cannot be loaded, or it needs what is not given here.
    """
    from lm_eval.tasks import TaskManager

    if task.definition is None:
        manager = all_tasks()
    else:
        write_text(definitions / f"{file_name(task.name)}.yaml", as_yaml(task.definition))
        manager = TaskManager(include_path=str(definitions), include_defaults=False)
    try:
        loaded = manager.load([task.name])["tasks"][task.name]
    except Exception as error:  # Whatever a task file, a data set or the hub may raise.
        first_line = (str(error).strip() or repr(error)).split("\n")[0]
        raise InputError(
            Problem(
                message=f"cannot load task {task.name}: {first_line}",
                fix="check the connection to the hub, or give local files by data_root",
            )
        ) from error
    for attribute, what in (
        ("UNSAFE_CODE", "runs what a model writes"),
        ("MULTIMODAL", "shows images"),
    ):
        if getattr(loaded, attribute, False):
            raise InputError(
                Problem(message=f"task {task.name} {what}", fix="leave it out: this is for text")
            )
    # As lm-eval's own command line: a number that the task's file sets to 0 stays.
    default = loaded.get_config("num_fewshot")
    if task.num_fewshot is not None and default != 0:
        loaded.set_config("num_fewshot", task.num_fewshot)
    elif default is None:
        loaded.set_config("num_fewshot", 0)
    _refuse_too_many_shots(loaded, task.name)
    loaded.set_fewshot_seed(seed=task.seed)
    return loaded


def _refuse_too_many_shots(loaded: Any, name: str) -> None:
    shots = loaded.config.num_fewshot
    if not shots:
        return
    # An item of the test split is no example of itself.
    others = len(list(loaded.fewshot_docs())) - (loaded.fewshot_cfg.split == "test")
    if shots > others:
        raise InputError(
            Problem(
                message=f"num_fewshot of {name} must be at most {others}, the items that it can "
                f"show solved, got {shots}",
                fix="take fewer, or give a file with more items",
            )
        )


def as_yaml(definition: Definition) -> str:
    """A task file for lm-eval: JSON, which is YAML, but for the functions."""
    return "".join(f"{key}: {_yaml_value(value)}\n" for key, value in definition.items())


def paper_definition(benchmark: Benchmark, data_root: Path | None) -> Definition:
    """A task file that includes lm-eval's own and takes the items from `data_root`, if given.

    Raises:
        InputError: the file of the items is not there.
    """
    import lm_eval

    assert lm_eval.__file__ is not None
    builtin = Path(lm_eval.__file__).parent / "tasks" / benchmark.definition
    definition: Definition = {"include": str(builtin), "task": benchmark.name, "tag": None}
    if data_root is None:
        return definition
    shots = benchmark.shots_file(data_root)
    # Where examples are other items of the same file, lm-eval leaves an item out of its own
    # prompt in a test split only.
    split = "test" if shots is None else benchmark.split
    files: dict[str, str] = {split: str(benchmark.data_file(data_root).absolute())}
    if shots is not None:
        files[shots[0]] = str(shots[1].absolute())
    return definition | {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files},
        "training_split": "train" if "train" in files else None,
        "validation_split": "validation" if "validation" in files else None,
        "test_split": "test" if "test" in files else None,
        "fewshot_split": shots[0] if shots is not None else split,
    }


def _of_paper(benchmark: Benchmark, task: TaskConfig, config: EvalConfig) -> PlannedTask:
    data_root = None if config.data_root is None else Path(config.data_root)
    files = [] if data_root is None else [benchmark.data_file(data_root)]
    shots = None if data_root is None else benchmark.shots_file(data_root)
    files += [shots[1]] if shots is not None else []
    return _planned(
        benchmark.name,
        config,
        definition=paper_definition(benchmark, data_root),
        num_fewshot=task.num_fewshot,
        limit=task.limit,
        group=benchmark.group,
        main_metric=benchmark.main_metric,
        described={"files": [sha256_of(file) for file in files]},
    )


def _of_lm_eval(name: str, task: TaskConfig, config: EvalConfig) -> PlannedTask:
    return _planned(
        name,
        config,
        definition=None,
        num_fewshot=task.num_fewshot,
        limit=task.limit,
        group=None,
        main_metric=None,
        described={},
    )


def _of_user(own: BenchmarkConfig, config: EvalConfig) -> PlannedTask:
    return _planned(
        own.name,
        config,
        definition=task_definition(own),
        num_fewshot=own.num_fewshot,
        limit=own.limit,
        group=group_of(own),
        main_metric="acc_norm" if own.kind == "multiple_choice" else own.kind,
        described={
            "files": [sha256_of(Path(own.path))],
            "definition": recorded_definition(own),
        },
    )


def _planned(
    name: str,
    config: EvalConfig,
    *,
    definition: Definition | None,
    num_fewshot: int | None,
    limit: int | None,
    group: Group | None,
    main_metric: str | None,
    described: dict[str, Any],
) -> PlannedTask:
    limit = limit or config.limit
    settings = {
        "task": name,
        "num_fewshot": num_fewshot,
        "limit": limit,
        "seed": config.seed,
        "template": config.task_template,
        "lm_eval": version("lm_eval"),
        **described,
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
    )


def _leaves(name: str) -> list[str]:
    """The tasks that a name of lm-eval stands for.

    Raises:
        InputError: it stands for none.
    """
    manager = all_tasks()
    if name not in manager.task_index:
        raise unknown_task(name, manager.all_tasks)
    if name in manager.all_subtasks:
        return [name]
    with quiet_lm_eval():
        return list(manager.load([name])["tasks"])


def _yaml_value(value: Any) -> str:
    if isinstance(value, Function):
        return f"!function {value}"
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)}: {_yaml_value(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml_value, value))}]"
    return json.dumps(value)
