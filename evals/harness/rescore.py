"""Score a model's logged responses again without the model, for example with other metrics."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from evals.config import JUDGED_BENCHMARKS, EvalConfig
from evals.contamination.annotate import copy_overlaps
from evals.harness.planning import PlannedTask, plan_tasks
from evals.harness.tasks import run_lm_eval
from evals.results.result_store import (
    FinishedEvaluation,
    ResultStore,
    StoredEvaluation,
    build_score_card,
    read_evaluation,
    write_samples,
)
from evals.results.scores import ScoreCard
from trainers.data.template import Template
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.extras import require_package
from trainers.foundation.files import read_json, write_json


def rescore(out_dir: Path) -> ScoreCard:
    """Return the scores of the responses that `score_model` saved in `out_dir`.

    The installed lm-eval scores tasks and benchmarks again, on the items of the settings. Judged
    evaluations and those on held-out examples remain unchanged. The files in `out_dir` are
    replaced.

    Raises:
        InputError: there are no scores, or the prompts have changed.
    """
    start = time.monotonic()
    card = _read_card(out_dir)
    tasks = _planned_tasks(card)
    if tasks:
        require_package("lm_eval", feature="plw eval --rescore", extra="benchmarks")
    stored = [
        evaluation
        for path in sorted((out_dir / "parts").glob("*.json"))
        if (evaluation := read_evaluation(path)) is not None
    ]
    score_names = list(dict.fromkeys(score.name for score in card.scores))
    stored.sort(key=lambda evaluation: _position(evaluation, score_names))
    finished = []
    for evaluation in stored:
        task = tasks.get(evaluation.finished.name)
        if task is not None:
            finished.append(_rescore_task(evaluation, task, card, out_dir))
        elif any(score.name in score_names for score in evaluation.finished.result.scores):
            finished.append(evaluation.finished)
    results = copy_overlaps([item.result for item in finished], out_dir / "samples.jsonl")
    finished = [
        replace(item, result=result) for item, result in zip(finished, results, strict=True)
    ]
    write_samples(out_dir, finished)
    signature = {key: value for key, value in card.signature.items() if key != "tasks"}
    new_card = build_score_card(
        finished, model_path=card.model_path, signature=signature, start=start
    )
    write_json(out_dir / "scores.json", new_card.model_dump(mode="json"))
    return new_card


def _read_card(out_dir: Path) -> ScoreCard:
    try:
        return ScoreCard.model_validate(read_json(out_dir / "scores.json"))
    except (OSError, ValueError) as error:
        raise InputError(
            Problem(
                message=f"cannot read scores: {str(error).splitlines()[0]}",
                where=str(out_dir),
                fix="give the output folder of `plw eval -o`",
            )
        ) from None


def _planned_tasks(card: ScoreCard) -> dict[str, PlannedTask]:
    settings = card.signature["measures"]
    if not settings.get("tasks") and not settings.get("benchmarks"):
        return {}
    judged = (*JUDGED_BENCHMARKS, "judged", "judge")
    others = {name: value for name, value in settings.items() if name not in judged}
    config = EvalConfig.model_validate({**others, "seed": card.signature["seed"]})
    return {task.name: task for task in plan_tasks(config)}


def _position(evaluation: StoredEvaluation, score_names: list[str]) -> int:
    """Return the position of the evaluation's first score on the score card."""
    scores = evaluation.finished.result.scores
    names = [score.name for score in scores if score.name in score_names]
    return score_names.index(names[0]) if names else len(score_names)


def _rescore_task(
    stored: StoredEvaluation, task: PlannedTask, card: ScoreCard, out_dir: Path
) -> FinishedEvaluation:
    from evals.harness.lm import ReplayLM

    start = time.monotonic()
    previous = stored.finished.result
    responses: dict[tuple[str, int, int], list[Any]] = {
        (sample["measure"], int(sample["id"]), index): list(request_responses)
        for sample in previous.samples
        for index, request_responses in enumerate(sample["answers"])
    }
    template_name = str(card.signature["template"])
    template = None
    if task.template == "checkpoint":
        template = Template(
            template_name,
            AutoTokenizer.from_pretrained(card.model_path),
            args=card.signature.get("template_args"),
        )
    result = run_lm_eval(
        task,
        ReplayLM(responses, template),
        definitions=out_dir / "tasks",
        multiturn=template is not None and template.is_chat,
    )
    _check_prompts(previous.signature["tasks"], result.signature["tasks"], out_dir)
    finished = FinishedEvaluation(
        name=task.name,
        result=result,
        seconds=stored.finished.seconds + time.monotonic() - start,
        is_reused=True,
    )
    ResultStore(out_dir / "parts", stored.common).save(finished, task.settings)
    return finished


def _check_prompts(previous: Mapping[str, Any], current: Mapping[str, Any], out_dir: Path) -> None:
    changed = [
        name
        for name, signature in current.items()
        if signature["prompts_sha256"] != previous.get(name, {}).get("prompts_sha256")
    ]
    if changed:
        raise InputError(
            Problem(
                message=f"the prompts of {changed[0]} have changed since the model responded",
                where=str(out_dir),
                fix="restore the items and the version of lm-eval, or run plw eval again",
            )
        )
