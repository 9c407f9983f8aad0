"""Score one checkpoint: load it once, take every configured measure, write what came out."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import sacrebleu
import torch
import transformers

from evals.config import EvalConfig
from evals.config_base import EvalSection
from evals.contamination.annotate import with_overlaps
from evals.engine.batching import Progress
from evals.engine.loading import LoadedModel, load_model, quiet
from evals.harness.preflight import check_data
from evals.harness.tasks import PlannedTask, measure_task, planned_tasks
from evals.heldout.distractor_choice import measure_multiple_choice
from evals.heldout.examples import check_examples, check_training, choice_items, choose, digest
from evals.heldout.loss import measure_heldout
from evals.heldout.memorisation import measure_memorisation
from evals.heldout.reference_match import measure_long_generation, measure_short_generation
from evals.judge.evaluate import measure_judged
from evals.judge.outputs_file import digest_of
from evals.judge.suites import JudgedTask, check_judging, check_opponents, judged_tasks
from evals.results.measurement import Measured
from evals.results.result_store import (
    Part,
    PartFolder,
    Take,
    TakenPart,
    checkpoint_identity,
    write_samples,
)
from evals.results.scores import ScoreCard
from evals.scoring_identity import scoring_identity
from trainers.data.examples import Example
from trainers.foundation.files import check_output_folder, write_json

OnProgress = Callable[[str, int, int], None]
OnKept = Callable[[Sequence[str]], None]


def score_model(
    *,
    model_path: str | Path,
    examples: Sequence[Example],
    template: str,
    max_length: int,
    config: EvalConfig,
    out_dir: Path,
    training: Sequence[Example] | None = None,
    untuned_path: str | Path | None = None,
    num_threads: int | None = None,
    on_progress: OnProgress | None = None,
    on_kept: OnKept | None = None,
) -> ScoreCard:
    """The scores of the model at `model_path` on the held-out `examples`.

    `template` and `max_length` (tokens) are those of its training, `training` its examples: items
    that stand there too are counted, and memorisation is measured on them. Writes each measure to
    `out_dir/parts` once it is taken, then `out_dir/samples.jsonl`, then `out_dir/scores.json`,
    whose existence means that the model is scored. Measures of the same model with the same
    settings that an earlier run has left in `out_dir/parts` are not taken again: `on_kept` is
    told their names. Prints nothing: `on_progress` is told the measure, how many of its items are
    done and how many there are, once before its first batch and then after each. `num_threads`
    bounds torch's threads while this runs. `untuned_path` is the model that the judged measures
    compare with where their opponent is `untuned`.

    Raises:
        InputError: the examples, the template or the checkpoint cannot be scored, or nothing can
            be written to `out_dir`.
        TrainingError: the model's log-probabilities are not finite.
    """
    start = time.monotonic()
    check_output_folder(out_dir, where="--output-dir")
    check_examples(examples, config)
    check_training(training, config)
    check_data(config)
    check_judging(config)
    judged = judged_tasks(config)
    check_opponents(judged, untuned_path)
    scores_path = out_dir / "scores.json"
    scores_path.unlink(missing_ok=True)
    with quiet(num_threads):
        tasks = planned_tasks(config) if config.tasks or config.benchmarks else []
        loaded = load_model(model_path, template=template, max_length=max_length)
        signature = _signature(loaded, examples, config)
        folder = PartFolder(out_dir / "parts", _common_identity(model_path, loaded, signature))
        parts = [
            *_parts(loaded, examples, training or (), config),
            *(_task_part(loaded, task, config, folder) for task in tasks),
            *(_judged_part(loaded, t, config, model_path, untuned_path, out_dir) for t in judged),
        ]
        taken = _take(parts, folder, on_progress or _say_nothing, on_kept)
    if training is not None:
        outcomes = with_overlaps([part.measured for part in taken], examples, training)
        taken = [
            replace(part, measured=measured) for part, measured in zip(taken, outcomes, strict=True)
        ]
    card = write_samples(out_dir, taken, model_path=model_path, signature=signature, start=start)
    write_json(scores_path, card.model_dump(mode="json"))
    return card


def _take(
    parts: Sequence[Part], folder: PartFolder, on_progress: OnProgress, on_kept: OnKept | None
) -> list[TakenPart]:
    """All parts in their order, those of an earlier run as it left them."""
    kept = {part.name: found for part in parts if (found := folder.kept(part)) is not None}
    if kept and on_kept is not None:
        on_kept(list(kept))
    return [
        kept.get(part.name) or folder.take(part, partial(on_progress, part.name)) for part in parts
    ]


def _parts(
    loaded: LoadedModel,
    examples: Sequence[Example],
    training: Sequence[Example],
    config: EvalConfig,
) -> list[Part]:
    """The configured measures, in the order in which they are taken. Add yours here."""
    batch_size, seed = config.examples_at_once, config.seed
    parts: list[Part] = []

    def add(
        section: EvalSection, name: str, items: Sequence[Any], measure: Take, **others: Any
    ) -> None:
        settings = {
            **section.model_dump(mode="json"),
            "seed": seed,
            "items_sha256": digest(examples),
            **others,
        }
        parts.append(Part(name=name, num_items=len(items), settings=settings, measure=measure))

    if (heldout := config.heldout) is not None:
        chosen = choose(examples, heldout.examples, seed)
        take = partial(measure_heldout, loaded, chosen, batch_size=batch_size, seed=seed)
        add(heldout, "heldout", chosen, take)
    if (choice := config.multiple_choice) is not None:
        items = choice_items(examples, choice, seed)
        take = partial(measure_multiple_choice, loaded, items, batch_size=batch_size)
        add(choice, "multiple_choice", items, take)
    if (short := config.short_generation) is not None:
        chosen = choose(examples, short.examples, seed)
        take = partial(measure_short_generation, loaded, chosen, short, batch_size=batch_size)
        add(short, "short_generation", chosen, take)
    if (long := config.long_generation) is not None:
        chosen = choose(examples, long.examples, seed)
        take = partial(
            measure_long_generation, loaded, chosen, long, batch_size=batch_size, seed=seed
        )
        add(long, "long_generation", chosen, take)
    if (memorisation := config.memorisation) is not None:
        seen = choose(training, memorisation.examples, seed)
        unseen = choose(examples, memorisation.examples, seed)
        take = partial(
            measure_memorisation,
            loaded,
            seen,
            unseen,
            memorisation,
            batch_size=batch_size,
            seed=seed,
        )
        add(
            memorisation,
            "memorisation",
            [*seen, *unseen],
            take,
            training_items_sha256=digest(seen),
        )
    return parts


def _task_part(
    loaded: LoadedModel, task: PlannedTask, config: EvalConfig, folder: PartFolder
) -> Part:
    """A benchmark as a part; what it has got of a killed run's answers is not asked again."""

    def measure(*, on_progress: Progress) -> Measured:
        return measure_task(
            loaded,
            task,
            batch_size=None if config.batch_size == "auto" else config.batch_size,
            answers=folder.answers(task.name, task.settings),
            definitions=folder.folder.parent / "tasks",
            on_progress=on_progress,
        )

    return Part(name=task.name, num_items=None, settings=task.settings, measure=measure)


def _judged_part(
    loaded: LoadedModel,
    task: JudgedTask,
    config: EvalConfig,
    model_path: str | Path,
    untuned_path: str | Path | None,
    out_dir: Path,
) -> Part:
    """A measure that a judge decides."""
    assert config.judge is not None
    opponent = task.opponent_model or untuned_path
    compares = task.references is None and opponent is not None
    settings = {
        "style": task.style,
        "max_new_tokens": task.max_new_tokens,
        "judge": config.judge.scoring_settings(),
        "records_sha256": digest_of(task.prompts),
        "opponent": task.opponent,
        "opponent_model": checkpoint_identity(opponent or "", None) if compares else None,
        "seed": config.seed,
    }
    take = partial(
        measure_judged,
        loaded,
        task,
        config.judge,
        model_path=model_path,
        untuned_path=opponent,
        outputs_dir=out_dir / "outputs",
        batch_size=config.examples_at_once,
        seed=config.seed,
    )
    return Part(name=task.name, num_items=task.num_steps, settings=settings, measure=take)


def _common_identity(
    model_path: str | Path, loaded: LoadedModel, signature: dict[str, Any]
) -> dict[str, Any]:
    """What the outcome of every part depends on."""
    commit = getattr(loaded.model.config, "_commit_hash", None)
    # What concerns some parts alone is in their settings.
    special = ("measures", "seed", "items_sha256", "num_examples", "benchmark_files")
    common = {key: value for key, value in signature.items() if key not in special}
    return {**common, "checkpoint": checkpoint_identity(model_path, commit)}


def _signature(
    loaded: LoadedModel, examples: Sequence[Example], config: EvalConfig
) -> dict[str, Any]:
    """What the scores depend on besides the model: equal signatures make them comparable."""
    return {
        **scoring_identity(
            examples, config, template=loaded.template.name, max_length=loaded.max_length
        ),
        "batch_size": config.batch_size,
        **_chat_template_sha256(loaded),
        "device": loaded.device.type,
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "sacrebleu": sacrebleu.__version__,
    }


def _chat_template_sha256(loaded: LoadedModel) -> dict[str, str]:
    if loaded.template.name != "chat":
        return {}
    text = str(loaded.tokenizer.chat_template)
    return {"template_sha256": hashlib.sha256(text.encode("utf-8")).hexdigest()}


def _say_nothing(measure: str, done: int, total: int) -> None:
    """The listener when nobody listens."""
