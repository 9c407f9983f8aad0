"""Score one checkpoint: load it once, run every configured evaluation, write the results."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import sacrebleu
import torch
import transformers

from evals.config import EvalConfig
from evals.config_base import EvalSettings
from evals.contamination.annotate import annotate_overlaps
from evals.engine.batching import ProgressCallback, ignore_progress
from evals.engine.helper_ranks import Handlers, HelperRanks, help_rank_0
from evals.engine.loaded_model import LoadedModel
from evals.engine.loading import load_model, torch_threads
from evals.engine.loglikelihood import score_share
from evals.engine.shared_generation import generate_share
from evals.harness.planning import PlannedTask, plan_tasks
from evals.harness.preflight import check_benchmarks
from evals.harness.tasks import evaluate_task
from evals.heldout.distractor_choice import evaluate_choice
from evals.heldout.examples import (
    check_examples,
    check_training_examples,
    choice_items,
    examples_sha256,
    sample_examples,
)
from evals.heldout.loss import evaluate_heldout_loss
from evals.heldout.memorisation import evaluate_memorisation
from evals.heldout.reference_match import evaluate_chrf, evaluate_exact_match
from evals.judge.evaluate import JudgedEvaluation
from evals.judge.outputs_file import hash_records
from evals.judge.suites import JudgedTask, check_judge_setup, check_opponents, load_judged_tasks
from evals.results.evaluation import Evaluation, EvaluationResult, RunEvaluation
from evals.results.result_store import (
    ResultStore,
    build_score_card,
    checkpoint_identity,
    write_samples,
)
from evals.results.run_evaluations import OnProgress, OnReused, run_evaluations
from evals.results.scores import ScoreCard
from evals.scoring_identity import scoring_identity
from trainers.data.examples import Example
from trainers.data_config import TruncationSide
from trainers.foundation.files import check_output_folder, write_json
from trainers.models.transformers_output import suppress_transformers_output


def score_model(
    *,
    model_path: str | Path,
    examples: Sequence[Example],
    template: str,
    max_length: int,
    config: EvalConfig,
    out_dir: Path,
    template_args: Mapping[str, Any] | None = None,
    truncation_side: TruncationSide = "left",
    training: Sequence[Example] | None = None,
    untuned_path: str | Path | None = None,
    plw_0_path: str | Path | None = None,
    num_threads: int | None = None,
    helpers: HelperRanks | None = None,
    on_progress: OnProgress | None = None,
    on_reused: OnReused | None = None,
) -> ScoreCard:
    """Return the scores of the model at `model_path` on the held-out `examples`.

    Each result is written to `out_dir/parts` once it is complete. Then `out_dir/samples.jsonl` is
    written, and last `out_dir/scores.json`, whose existence means that the model is scored. Results
    in `out_dir/parts` for the same model and settings are reused. Outputs for a judge are generated
    first, and judged while the other evaluations use the device. Nothing is printed.

    Args:
        template, template_args, max_length, truncation_side: those of the model's training;
            `max_length` is in tokens.
        training: the model's training examples, for counting overlapping items and for evaluating
            memorisation.
        untuned_path: the opponent in judged evaluations whose opponent is `untuned`.
        plw_0_path: the opponent in those whose opponent is `plw_0`: the outputs file of the trial
            with PLW 0, or `model_path` for that trial itself.
        num_threads: torch threads during this call; None leaves the number unchanged.
        helpers: other ranks, which call `help_scoring` with the same model, template and config.
        on_progress: called before the first batch of an evaluation and after each batch.

    Raises:
        InputError: the examples, the template or the checkpoint cannot be scored, or `out_dir` is
            not writable.
        TrainingError: the model's log-probabilities are not finite.
    """
    start = time.monotonic()
    check_output_folder(out_dir, where="--output-dir")
    check_examples(examples, config)
    check_training_examples(training, config)
    check_benchmarks(config)
    check_judge_setup(config)
    judged_tasks = load_judged_tasks(config, plw_0_path)
    check_opponents(judged_tasks, untuned_path)
    scores_path = out_dir / "scores.json"
    scores_path.unlink(missing_ok=True)
    with suppress_transformers_output(), torch_threads(num_threads):
        tasks = plan_tasks(config) if config.tasks or config.benchmarks else []
        loaded = load_model(
            model_path,
            template=template,
            max_length=max_length,
            template_args=template_args,
            truncation_side=truncation_side,
            engine=config.engine,
            vllm=config.vllm,
            helpers=helpers,
        )
        signature = _signature(loaded, examples, config)
        store = ResultStore(out_dir / "parts", _common_identity(model_path, loaded, signature))
        evaluations = [
            *_heldout_evaluations(loaded, examples, training or (), config),
            *(_task_evaluation(loaded, task, config, store) for task in tasks),
            *(
                _judged_evaluation(loaded, task, config, model_path, untuned_path, out_dir)
                for task in judged_tasks
            ),
        ]
        with closing(loaded.engine):
            finished = run_evaluations(
                evaluations,
                store,
                on_progress or ignore_progress,
                on_reused,
                in_background=config.judge is not None and config.judge.local_model is None,
            )
    if training is not None:
        results = annotate_overlaps([item.result for item in finished], examples, training)
        finished = [
            replace(item, result=result) for item, result in zip(finished, results, strict=True)
        ]
    write_samples(out_dir, finished)
    card = build_score_card(finished, model_path=model_path, signature=signature, start=start)
    write_json(scores_path, card.model_dump(mode="json"))
    return card


def help_scoring(
    *,
    model_path: str | Path,
    template: str,
    max_length: int,
    config: EvalConfig,
    template_args: Mapping[str, Any] | None = None,
    truncation_side: TruncationSide = "left",
    num_threads: int | None = None,
) -> None:
    """Help rank 0 to score a model: likelihoods and outputs of benchmarks, and judged outputs.

    Raises:
        InputError: the checkpoint cannot be loaded.
    """
    with ExitStack() as stack:
        stack.enter_context(suppress_transformers_output())
        stack.enter_context(torch_threads(num_threads))

        def load() -> Handlers:
            loaded = load_model(
                model_path,
                template=template,
                max_length=max_length,
                template_args=template_args,
                truncation_side=truncation_side,
                engine=config.engine,
                vllm=config.vllm,
            )
            stack.enter_context(closing(loaded.engine))
            return {
                "score": partial(score_share, loaded.scorer),
                "generate": partial(generate_share, loaded),
            }

        help_rank_0(load)


def _heldout_evaluations(
    loaded: LoadedModel,
    examples: Sequence[Example],
    training: Sequence[Example],
    config: EvalConfig,
) -> list[Evaluation]:
    """Return the configured evaluations on examples, in the order in which they run."""
    seed = config.seed
    batch: dict[str, Any] = {"batch_size": config.heldout_batch_size}
    outputs: dict[str, Any] = {"batch_size": config.generation_batch_size}
    evaluations: list[Evaluation] = []

    def add(
        name: str, settings: EvalSettings, items: Sequence[Any], run: RunEvaluation, **others: Any
    ) -> None:
        all_settings = {
            **settings.model_dump(mode="json"),
            "seed": seed,
            "items_sha256": examples_sha256(examples),
            **others,
        }
        evaluations.append(
            Evaluation(name=name, num_items=len(items), settings=all_settings, run=run)
        )

    if (heldout := config.heldout) is not None:
        sample = sample_examples(examples, heldout.examples, seed)
        add(
            "heldout",
            heldout,
            sample,
            partial(evaluate_heldout_loss, loaded, sample, **batch, seed=seed),
        )
    if (choice := config.heldout_choice) is not None:
        items = choice_items(examples, choice, seed)
        run = partial(evaluate_choice, loaded, items, **batch)
        add("heldout.choice", choice, items, run)
    if (short := config.heldout_exact_match) is not None:
        sample = sample_examples(examples, short.examples, seed)
        run = partial(evaluate_exact_match, loaded, sample, short, **outputs)
        add("heldout.exact_match", short, sample, run)
    if (long := config.heldout_chrf) is not None:
        sample = sample_examples(examples, long.examples, seed)
        run = partial(evaluate_chrf, loaded, sample, long, **outputs, seed=seed)
        add("heldout.chrf", long, sample, run)
    if (memorisation := config.memorisation) is not None:
        seen = sample_examples(training, memorisation.examples, seed)
        unseen = sample_examples(examples, memorisation.examples, seed)
        run = partial(
            evaluate_memorisation, loaded, seen, unseen, memorisation, **outputs, seed=seed
        )
        training_sha256 = examples_sha256(seen)
        add(
            "memorisation",
            memorisation,
            [*seen, *unseen],
            run,
            training_items_sha256=training_sha256,
        )
    return evaluations


def _task_evaluation(
    loaded: LoadedModel, task: PlannedTask, config: EvalConfig, store: ResultStore
) -> Evaluation:
    """Return the evaluation of a benchmark; it reuses the logged responses of a killed run."""

    def run(*, on_progress: ProgressCallback) -> EvaluationResult:
        return evaluate_task(
            loaded,
            task,
            batch_size=config.generation_batch_size,
            responses=store.response_log(task.name, task.settings),
            definitions=store.folder.parent / "tasks",
            on_progress=on_progress,
        )

    return Evaluation(name=task.name, num_items=None, settings=task.settings, run=run)


def _judged_evaluation(
    loaded: LoadedModel,
    task: JudgedTask,
    config: EvalConfig,
    model_path: str | Path,
    untuned_path: str | Path | None,
    out_dir: Path,
) -> Evaluation:
    """Return the evaluation of a task that the judge scores."""
    assert config.judge is not None
    opponent = task.opponent_model or untuned_path
    is_model = task.references is None and opponent is not None
    settings = {
        "style": task.style,
        "max_new_tokens": task.max_new_tokens,
        "judge": config.judge.scoring_settings(),
        "records_sha256": hash_records(task.prompts),
        "opponent": task.opponent,
        "opponent_model": checkpoint_identity(opponent or "", None) if is_model else None,
        "seed": config.seed,
    }
    judged = JudgedEvaluation(
        loaded=loaded,
        task=task,
        judge=config.judge,
        model_path=model_path,
        opponent_path=opponent,
        load_opponent=partial(
            load_model, max_length=loaded.max_length, engine=config.engine, vllm=config.vllm
        ),
        outputs_dir=out_dir / "outputs",
        batch_size=config.generation_batch_size,
        seed=config.seed,
    )
    return Evaluation(
        name=task.name,
        num_items=task.num_steps,
        settings=settings,
        run=judged.evaluate,
        prepare=judged.generate_outputs,
    )


def _common_identity(
    model_path: str | Path, loaded: LoadedModel, signature: dict[str, Any]
) -> dict[str, Any]:
    """Return the values that the results of all evaluations depend on."""
    commit = getattr(loaded.model.config, "_commit_hash", None)
    # These concern single evaluations, whose settings contain them.
    excluded = (
        "measures",
        "seed",
        "items_sha256",
        "num_examples",
        "benchmark_files",
        "tasks_version",
    )
    common = {key: value for key, value in signature.items() if key not in excluded}
    return {**common, "checkpoint": checkpoint_identity(model_path, commit)}


def _signature(
    loaded: LoadedModel, examples: Sequence[Example], config: EvalConfig
) -> dict[str, Any]:
    """Return the values, other than the model, that scores depend on.

    Scores with equal signatures are comparable.
    """
    return {
        **scoring_identity(
            examples,
            config,
            template=loaded.template.name,
            max_length=loaded.max_length,
            template_args=loaded.template.args,
            truncation_side=loaded.template.truncation_side,
        ),
        "batch_size": config.batch_size,
        # Scores from before there was a choice were generated in padded batches.
        **({} if loaded.engine.name == "padded" else {"engine": loaded.engine.name}),
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
