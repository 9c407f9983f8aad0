"""Score again what a model has answered, without the model: other metrics of the same outputs."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from evals.config import JUDGED, EvalConfig
from evals.contamination.annotate import with_known_overlaps
from evals.harness.tasks import PlannedTask, evaluate, planned_tasks
from evals.results.result_store import (
    KeptPart,
    Part,
    PartFolder,
    TakenPart,
    read_part,
    write_samples,
)
from evals.results.scores import ScoreCard
from trainers.data.roles import Template
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import read_json, write_json


def rescore(out_dir: Path) -> ScoreCard:
    """The scores of the answers in `out_dir`, where `score_model` has put them.

    Tasks and benchmarks are scored anew by the lm-eval that is installed, on the items that the
    settings name; measures on held-out examples stay as they are. Replaces the files in `out_dir`.

    Raises:
        InputError: nothing was scored there, or the prompts are not the same any more.
    """
    start = time.monotonic()
    card = _read_card(out_dir)
    measures = card.signature["measures"]
    # Verdicts of a judge stay as they are.
    settings = {
        name: measures[name] for name in measures if name not in (*JUDGED, "judged", "judge")
    }
    tasks: dict[str, PlannedTask] = {}
    if settings.get("tasks") or settings.get("benchmarks"):
        config = EvalConfig.model_validate({**settings, "seed": card.signature["seed"]})
        tasks = {task.name: task for task in planned_tasks(config)}
    kept = [
        found
        for path in sorted((out_dir / "parts").glob("*.json"))
        if (found := read_part(path)) is not None
    ]
    order = list(dict.fromkeys(score.name for score in card.scores))
    kept.sort(key=lambda part: _place(part, order))
    taken = []
    for found in kept:
        task = tasks.get(found.taken.name)
        if task is not None:
            taken.append(_scored_anew(found, task, card, out_dir))
        elif any(score.name in order for score in found.taken.measured.scores):
            taken.append(found.taken)
    outcomes = with_known_overlaps([part.measured for part in taken], out_dir / "samples.jsonl")
    taken = [replace(p, measured=outcome) for p, outcome in zip(taken, outcomes, strict=True)]
    signature = {key: value for key, value in card.signature.items() if key != "tasks"}
    new = write_samples(
        out_dir, taken, model_path=card.model_path, signature=signature, start=start
    )
    write_json(out_dir / "scores.json", new.model_dump(mode="json"))
    return new


def _read_card(out_dir: Path) -> ScoreCard:
    try:
        return ScoreCard.model_validate(read_json(out_dir / "scores.json"))
    except (OSError, ValueError) as error:
        raise InputError(
            Problem(
                message=f"there are no scores to take again: {str(error).splitlines()[0]}",
                where=str(out_dir),
                fix="give the folder that `plw eval -o` has written",
            )
        ) from None


def _place(part: KeptPart, order: list[str]) -> int:
    names = [score.name for score in part.taken.measured.scores if score.name in order]
    return order.index(names[0]) if names else len(order)


def _scored_anew(found: KeptPart, task: PlannedTask, card: ScoreCard, out_dir: Path) -> TakenPart:
    from evals.harness.lm import Replayed

    start = time.monotonic()
    answers: dict[tuple[int, int], list[Any]] = {
        (int(sample["id"]), index): list(of_request)
        for sample in found.taken.measured.samples
        for index, of_request in enumerate(sample["answers"])
    }
    name = str(card.signature["template"])
    template = None
    if task.template == "checkpoint":
        template = Template(name, AutoTokenizer.from_pretrained(card.model_path))
    measured = evaluate(
        task,
        Replayed(answers, template),
        definitions=out_dir / "tasks",
        multiturn=name == "chat",
    )
    before = found.taken.measured.signature["tasks"][task.name]["prompts_sha256"]
    if measured.signature["tasks"][task.name]["prompts_sha256"] != before:
        raise InputError(
            Problem(
                message=f"the prompts of {task.name} are not those that the model has answered",
                where=str(out_dir),
                fix="bring back the items and the version of lm-eval, or run plw eval again",
            )
        )
    taken = TakenPart(
        name=task.name,
        measured=measured,
        seconds=found.taken.seconds + time.monotonic() - start,
        is_kept=True,
    )
    part = Part(name=task.name, num_items=None, settings=task.settings, measure=_not_taken)
    PartFolder(out_dir / "parts", found.common).replace(part, taken)
    return taken


def _not_taken(**_: Any) -> Any:
    raise AssertionError("a rescored part is not measured")
