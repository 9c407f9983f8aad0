"""What one rank of a trial does, and how a checkpoint is scored. Knows nothing of Ray.

Heavy imports live inside the functions: the processes that only schedule never pay for them.
"""

import gc
import logging
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evals.config import EvalConfig
from orchestrator.record.folder import SweepFolder, TrialRecord
from orchestrator.trials.quiet import output_to
from trainers.config import DataConfig, TrainConfig
from trainers.foundation.errors import InputError, TrainingError
from trainers.foundation.files import read_json
from trainers.runs.results import StepMetrics, TrainResult

if TYPE_CHECKING:
    from trainers.data.examples import Example
    from trainers.foundation.object_store import ObjectStore

# A `trial` is trained and then scored, for `training` it is only trained, and for `scoring` only
# scored; a `base` is scored untuned.
JobKind = Literal["trial", "training", "scoring", "base"]


def train_rank(
    root: Path,
    trial_id: str,
    settings: dict[str, Any],
    num_threads: int,
    on_step: Callable[[StepMetrics], None] | None,
    should_stop: Callable[[], Literal["checkpoint", "discard"] | None] | None = None,
    store: "ObjectStore | None" = None,
) -> bool:
    """Train one rank of a trial, its output going to the trial's log.

    The rank with `on_step`, the first, samples what its node does as well.
    `store` is the trial's, where the ranks share no folder.

    Returns whether it was trained to its end; not so where `should_stop`, asked after each step,
    has ended it.

    Raises:
        InputError, TrainingError: as `trainers.sft.train`.
    """
    folder = SweepFolder(root)
    with output_to(folder.trial(trial_id) / "log.txt"), ExitStack() as stack:
        _log_to_stderr()
        import torch

        torch.set_num_threads(num_threads)
        from orchestrator.trials.system_metrics import system_metrics_in
        from trainers.runs.stop_signals import Interrupted, Stopped
        from trainers.sft import train

        config = TrainConfig.model_validate(settings)
        if on_step is not None:
            stack.enter_context(system_metrics_in(folder.system_metrics(trial_id)))
        try:
            train(
                config,
                folder.trial(trial_id),
                on_step=on_step,
                should_stop=should_stop,
                store=store,
            )
        except (Interrupted, Stopped):
            is_complete = False
        else:
            is_complete = True
        # Engine and model refer to each other: without this the next trial on these warm ranks
        # would find the memory of the last one still taken.
        gc.collect()
    return is_complete


def is_trained(root: Path, record: TrialRecord) -> bool:
    """Whether a trial with these very settings has been trained, so that only scores may miss."""
    folder = SweepFolder(root)
    path = folder.trial(record.id) / "train.json"
    if not path.exists() or not folder.model(record.id).is_dir():
        return False
    return bool(read_json(path)["config"] == record.settings)


def is_scored_since(root: Path, trial_id: str) -> bool:
    """Whether a trial's scores are younger than its model."""
    folder = SweepFolder(root).trial(trial_id)
    scores, trained = folder / "scores.json", folder / "train.json"
    return scores.exists() and scores.stat().st_mtime >= trained.stat().st_mtime


def train_result(root: Path, trial_id: str) -> TrainResult | None:
    """The result that the ranks of a trained trial left behind; None while there is none."""
    path = SweepFolder(root).trial(trial_id) / "train.json"
    return TrainResult(**read_json(path)["result"]) if path.exists() else None


def score(
    root: Path,
    kind: Literal["trial", "base"],
    key: str,
    base: str,
    model_path: str,
    settings: dict[str, Any],
    evals: dict[str, Any],
    num_threads: int,
) -> float:
    """Score trial `key`'s model, or base `key`'s untuned one, on the held-out examples of `base`.

    Returns the seconds it took.
    """
    folder = SweepFolder(root)
    out_dir = folder.base(key) if kind == "base" else folder.trial(key)
    began = time.monotonic()
    config = EvalConfig.model_validate(evals)
    with output_to(out_dir / "log.txt"):
        _log_to_stderr()
        from evals.heldout.examples import load_examples
        from evals.run import score_model
        from trainers.models.loading import resolve_model_path

        train = TrainConfig.model_validate(settings)
        score_model(
            model_path=_at_revision(model_path, train.model.revision),
            examples=load_examples(folder.heldout(base), may_be_empty=not config.takes_examples),
            template=train.data.template,
            max_length=train.data.max_length,
            config=config,
            out_dir=out_dir,
            training=_training_examples(train.data, config),
            untuned_path=_at_revision(resolve_model_path(train.model.path), train.model.revision),
            num_threads=num_threads,
        )
    return time.monotonic() - began


def _training_examples(data: DataConfig, evals: EvalConfig) -> "list[Example] | None":
    """What a trial was trained on; None if it is no longer there and no measure needs it.

    Raises:
        InputError: it cannot be read, but memorisation is to be measured on it.
    """
    from trainers.data.tokenize import read_split

    try:
        return read_split(data).train
    except InputError as error:
        if evals.memorisation is not None:
            raise
        logging.warning("not looked for overlap with the training data: %s", error)
        return None


def _at_revision(model_path: str, revision: str | None) -> str:
    """A hub model's files at a revision, which scoring would not know of; a folder as it is."""
    if revision is None or Path(model_path).is_dir():
        return model_path
    from huggingface_hub import snapshot_download

    return snapshot_download(model_path, revision=revision)


def started(record: TrialRecord) -> TrialRecord:
    """The record as it is once its ranks have begun."""
    return record.model_copy(
        update={
            "state": "training",
            "error": None,
            "note": None,
            "is_scored_beside": False,
            "started_at": record.started_at or now(),
        }
    )


def trained(record: TrialRecord, result: TrainResult) -> TrialRecord:
    """The record once the model is there and waits for its scores."""
    return record.model_copy(
        update={
            "state": "scoring",
            "train_seconds": result.seconds,
            "tokens_per_second": result.tokens_per_second,
            "final_completion_loss": result.completion_loss,
            "final_prompt_loss": result.prompt_loss,
            "loss_rsd": result.loss_rsd,
            "distance": result.distance,
            "device": result.device,
        }
    )


def scored(record: TrialRecord, eval_seconds: float) -> TrialRecord:
    """The record of a trial that is finished."""
    return record.model_copy(
        update={
            "state": "done",
            "note": None,
            "error": None,
            "eval_seconds": eval_seconds,
            "ended_at": now(),
        }
    )


def interrupted(record: TrialRecord) -> TrialRecord:
    """The record of a trial that was cut short with its sweep."""
    return record.model_copy(update={"state": "interrupted", "note": None, "ended_at": now()})


def stopped(record: TrialRecord) -> TrialRecord:
    """The record of a trial that the scheduler has ended early."""
    return record.model_copy(update={"state": "stopped", "note": None, "ended_at": now()})


def failure_kind(error: BaseException) -> str:
    """The kind of failure, as the spec's `retries` counts them; bad input is never tried again."""
    if isinstance(error, TrainingError):
        return error.kind
    if isinstance(error, InputError):
        return "input"
    # torch and Ray have a class of this name each, and neither is to be imported for it.
    is_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return "out_of_memory" if is_memory else "crash"


def reason_of(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def failed(record: TrialRecord, reason: str) -> TrialRecord:
    """The record of a trial that has given up, with the reason in one line."""
    return record.model_copy(
        update={
            "state": "failed",
            "note": None,
            "error": reason,
            "ended_at": now(),
        }
    )


def now() -> str:
    """The time as an ISO 8601 string in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _log_to_stderr() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
