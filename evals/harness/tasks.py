"""Run lm-eval's tasks and evaluator with the engine of evals.

Source: EleutherAI/lm-evaluation-harness 0.4, for prompts, filters and metrics.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from evals.engine.batching import ProgressCallback
from evals.engine.loaded_model import LoadedModel
from evals.harness.headlines import tasks_result
from evals.harness.loading import code_execution, load_tasks
from evals.harness.planning import PlannedTask
from evals.harness.registry import suppress_lm_eval_output
from evals.results.evaluation import EvaluationResult
from evals.results.response_log import ResponseLog


def evaluate_task(
    loaded: LoadedModel,
    task: PlannedTask,
    *,
    batch_size: int | None,
    responses: ResponseLog,
    definitions: Path,
    on_progress: ProgressCallback,
) -> EvaluationResult:
    """Return the scores of a benchmark: its headlines, and all others as secondary scores.

    Each response of the model is logged to `responses` immediately. lm-eval's task file is written
    to the folder `definitions`.

    Raises:
        InputError: the task or its data cannot be loaded, or an item does not fit the model.
        TrainingError: the model's log-probabilities are not finite.
    """
    from evals.harness.lm import EngineLM

    model = EngineLM(
        loaded,
        responses,
        batch_size=batch_size,
        apply_template=task.template == "checkpoint",
        think_end_token=task.think_end_token,
        seed=task.seed,
        on_progress=on_progress,
    )
    multiturn = loaded.template.is_chat
    return run_lm_eval(task, model, definitions=definitions, multiturn=multiturn)


def run_lm_eval(
    task: PlannedTask, model: Any, *, definitions: Path, multiturn: bool
) -> EvaluationResult:
    """Return the result of lm-eval's evaluator for a task; `model` is an lm_eval.api.model.LM.

    Raises:
        InputError: the task or its data cannot be loaded.
    """
    from lm_eval import evaluator

    loaded = load_tasks(task, definitions)
    with suppress_lm_eval_output(), code_execution(is_allowed=task.allow_code_execution):
        results = evaluator.evaluate(
            model,
            {"tasks": loaded.tasks, "groups": loaded.groups},
            limit=task.limit,
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=task.template == "checkpoint",
            fewshot_as_multiturn=multiturn,
            system_instruction=task.system_instruction,
            confirm_run_unsafe_code=task.allow_code_execution,
        )
    return tasks_result(
        loaded,
        results,
        task,
        signature={
            "limit": task.limit,
            "seed": task.seed,
            "template": task.template,
            "lm_eval": version("lm_eval"),
        },
    )
