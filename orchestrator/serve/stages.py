"""The stages of a job in its process: check the data, search the weight, train the model."""

import os
import signal
from pathlib import Path
from typing import Any

from evals.config import HELDOUT_EVALUATIONS, EvalConfig
from evals.run import score_model
from orchestrator.export.best_setting import read_best_setting
from orchestrator.inspection.dataset_stats import data_stats
from orchestrator.record.folder import SweepFolder
from orchestrator.serve.job_files import JobError, WorkerExit, WorkerInput, add_event
from orchestrator.serve.paths import JobFolder
from orchestrator.spec.sweep_spec import load_spec
from orchestrator.tracking.single_run import log_fine_tune
from orchestrator.trials.sweep import run_sweep
from orchestrator.trials.sweep_checks import check_sweep
from trainers.config import TrainConfig
from trainers.data.readers import iter_examples
from trainers.foundation.errors import InputError
from trainers.foundation.files import write_json
from trainers.models.loading import check_model, load_tokenizer
from trainers.models.prompt_format import read_prompt_format
from trainers.runs.stop_signals import Interrupted
from trainers.sft import train as run_training

HELDOUT_LOSS = "heldout_completion_loss"
# The experiment of the fine-tunes; that of a sweep has the job's id.
EXPERIMENT = "plw-serve"


def check_data(folder: JobFolder, config: TrainConfig, weight: float | None) -> None:
    """Check that model and data fit, and record token counts and R_g as events.

    Args:
        weight: the prompt loss weight of the job; None for an auto job.

    Raises:
        JobError: the model does not load, or the data does not suit it.
    """
    try:
        load_tokenizer(config.model)
        check_model(config.model)
    except InputError as error:
        raise JobError("model_not_loadable", str(error), "model") from error
    try:
        stats = data_stats(config.model, config.data)
    except InputError as error:
        raise JobError("invalid_training_file", str(error), "training_file") from error
    write_json(folder.stats_json, stats.model_dump(mode="json"))
    ratio = stats.generation_ratio.of_means
    shown = "unknown" if ratio is None else f"{ratio:.3f}"
    add_event(
        folder,
        "data",
        f"Training file: {stats.num_examples} examples, {stats.prompt.total:,} prompt and"
        f" {stats.completion.total:,} completion tokens; generation ratio R_g {shown}",
        data={
            "num_examples": stats.num_examples,
            "prompt_tokens": stats.prompt.total,
            "completion_tokens": stats.completion.total,
            "generation_ratio": ratio,
        },
    )
    level = "warn" if stats.has_truncated_examples else "info"
    for index, line in enumerate(stats.loss_lines()):
        add_event(folder, f"data-{index}", f"Training file: {line}", level=level)
    if weight == 0 and ratio is not None and ratio < 1:
        add_event(
            folder,
            "short",
            f"Completions are short (R_g {shown}) and prompt_loss_weight is 0; a weight above 0"
            ' may be better; "auto" searches for one',
            level="warn",
        )


def search(
    folder: JobFolder, spec_content: dict[str, Any], default: float, address: str | None
) -> WorkerExit:
    """Run the sweep of an auto job, and choose its weight.

    Raises:
        JobError: the sweep cannot run, or no trial has a score.
        KeyboardInterrupt: SIGTERM came; running trials wrote a checkpoint.
    """
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    path = folder.root / "auto.yaml"
    write_json(path, spec_content)  # JSON is YAML
    spec = load_spec(path)
    try:
        prepared = check_sweep(spec, address=address)
        outcome = run_sweep(spec, prepared, path, address=address, is_silent=True)
    except InputError as error:
        raise JobError("sweep_failed", str(error), "prompt_loss_weight") from error
    if outcome.was_stopped or outcome.num_unfinished:
        raise KeyboardInterrupt
    sweep = SweepFolder(folder.sweep)
    trials = sweep.read_trials()
    if all(trial.state != "done" for trial in trials):
        reason = next((trial.error for trial in trials if trial.error), "no trial has a score")
        raise JobError("sweep_failed", reason, "prompt_loss_weight")
    weight, is_conclusive, reason = _choose(folder.sweep, default)
    seconds = sum(trial.busy_seconds + trial.scorer_seconds for trial in trials)
    num_done = sum(trial.state == "done" for trial in trials)
    result = {
        "prompt_loss_weight": weight,
        "is_conclusive": is_conclusive,
        "reason": reason,
        "trials_done": num_done,
        "trials": len(trials),
        "trial_seconds": round(seconds, 1),
        "end_reason": outcome.end_reason,
    }
    found = "" if is_conclusive else "inconclusive, so the default is used: "
    add_event(
        folder,
        "search-result",
        f"prompt_loss_weight auto: {found}{weight:g}. {reason} Cost: {num_done} of {len(trials)}"
        f" trials, {seconds:.0f} s of training and scoring",
        level="info" if is_conclusive else "warn",
        data=result,
    )
    return WorkerExit(stage="search", search=result)


def _choose(sweep: Path, default: float) -> tuple[float, bool, str]:
    """Return the weight of `plw train --best`, whether the sweep names it, and the reason."""
    try:
        best = read_best_setting(sweep, None, None)
    except InputError as error:
        return default, False, error.problems[0].message
    return best.prompt_loss_weight, True, best.reason


def train(folder: JobFolder, config: TrainConfig) -> WorkerExit:
    """Train the model as `plw train` does, and measure its loss on the validation file.

    Raises:
        JobError: model, data and settings do not fit, or the validation file cannot be read.
        Interrupted: SIGTERM came; a checkpoint was written.
        TrainingError: as `trainers.sft.train`.
    """
    try:
        result = run_training(config, folder.out)
    except Interrupted:
        raise
    except InputError as error:
        raise JobError("model_not_loadable", str(error), "model") from error
    valid_loss = None
    if folder.validation.exists():
        valid_loss = _validation_loss(folder, config)
        add_event(
            folder,
            "validation",
            f"Validation loss of the completion tokens after training: {valid_loss:.4f}",
            type="metrics",
            data={"step": result.steps, "full_valid_loss": valid_loss},
        )
    return WorkerExit(
        stage="train",
        trained_tokens=result.num_tokens,
        steps=result.steps,
        train_loss=result.completion_loss,
        valid_loss=valid_loss,
        template_args=_recorded_args(folder.model),
    )


def track(folder: JobFolder, job: WorkerInput, config: TrainConfig) -> dict[str, str] | None:
    """Log the fine-tune to MLflow; None, and an event, if MLflow does not accept it."""
    try:
        run_id = log_fine_tune(
            job.tracking_uri,
            EXPERIMENT,
            job.job_id,
            settings=config.model_dump(mode="json"),
            metrics=folder.metrics,
            tags=job.tags,
        )
    except InputError as error:
        add_event(folder, "mlflow", f"The job is not in MLflow: {error}", level="warn")
        return None
    return {"mlflow_run_id": run_id, "mlflow_experiment": EXPERIMENT}


def _recorded_args(model: Path) -> dict[str, Any] | None:
    """Return the template's arguments of the training, with the date that its prompts show."""
    prompt_format = read_prompt_format(str(model))
    return None if prompt_format is None else dict(prompt_format.template_args)


def _validation_loss(folder: JobFolder, config: TrainConfig) -> float:
    data = config.data.model_copy(update={"path": str(folder.validation), "drop": ("empty",)})
    try:
        examples = list(iter_examples(data))
        others = dict.fromkeys(name for name in HELDOUT_EVALUATIONS if name != "heldout")
        evals = EvalConfig.model_validate({"heldout": {"examples": len(examples)}, **others})
        card = score_model(
            model_path=folder.model,
            examples=examples,
            template=config.data.template,
            template_args=_recorded_args(folder.model),
            max_length=config.data.max_length,
            truncation_side=config.data.truncation_side,
            config=evals,
            out_dir=folder.root / "validation",
        )
    except InputError as error:
        raise JobError("invalid_validation_file", str(error), "validation_file") from error
    return card.by_name()[HELDOUT_LOSS].value
