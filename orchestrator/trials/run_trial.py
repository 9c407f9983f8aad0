"""Train one rank of a trial, score a model, and update a trial's record. Independent of Ray.

Heavy imports are inside the functions, because processes that only schedule do not need them.
"""

import gc
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evals.config import EvalConfig
from orchestrator.foundation.clock import now
from orchestrator.record.folder import SweepFolder, TrialRecord
from orchestrator.trials.redirect_output import redirect_output
from trainers.config import TrainConfig, is_same_config
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError, TrainingError, is_out_of_memory
from trainers.foundation.files import read_json
from trainers.runs.results import StepMetrics, TrainResult

if TYPE_CHECKING:
    from trainers.data.examples import Example
    from trainers.foundation.object_store import ObjectStore

# `trial`: train, then score; `training`: only train; `scoring`: only score; `base`: score the
# untuned model of a baseline.
JobKind = Literal["trial", "training", "scoring", "base"]
LOG_EVERY_S = 60.0
# Ray's memory monitor, which kills processes of trials before the machine's memory is full.
_LOW_MEMORY = re.compile(
    r"killed due to the node running low on memory.* was (?P<used>[\d.]+)GB used"
    r" / (?P<limit>[\d.]+)GB limit",
    re.DOTALL,
)


def train_rank(
    root: Path,
    trial_id: str,
    settings: dict[str, Any],
    num_threads: int,
    on_step: Callable[[StepMetrics], None] | None,
    get_stop_request: Callable[[], Literal["checkpoint", "discard"] | None] | None = None,
    store: "ObjectStore | None" = None,
) -> bool:
    """Train one rank of a trial, with its output in the trial's log.

    Returns whether the training is complete; False if a stop request ended it.

    Args:
        on_step: called after each step. Only the first rank has one; it also samples system
            metrics.
        get_stop_request: called after each step; a request ends the training early.
        store: the trial's object store, if the ranks share no folder.

    Raises:
        InputError, TrainingError: the same as in `trainers.sft.train`.
    """
    folder = SweepFolder(root)
    with redirect_output(folder.trial(trial_id) / "log.txt"), ExitStack() as stack:
        _log_to_stderr()
        import torch

        torch.set_num_threads(num_threads)
        from orchestrator.trials.system_metrics import record_system_metrics
        from trainers.runs.stop_signals import Interrupted, Stopped
        from trainers.sft import train

        config = TrainConfig.model_validate(settings)
        if on_step is not None:
            stack.enter_context(record_system_metrics(folder.system_metrics(trial_id)))
        try:
            train(
                config,
                folder.trial(trial_id),
                on_step=on_step,
                get_stop_request=get_stop_request,
                store=store,
            )
        except (Interrupted, Stopped):
            is_complete = False
        else:
            is_complete = True
        # Engine and model form a reference cycle: without this call their memory would still be
        # allocated when the next trial starts on these warm ranks.
        gc.collect()
    return is_complete


def is_trained(root: Path, record: TrialRecord) -> bool:
    """Return whether a trial has been trained with the settings in its record."""
    folder = SweepFolder(root)
    path = folder.trial(record.id) / "train.json"
    if not path.exists() or not folder.model(record.id).is_dir():
        return False
    return is_same_config(read_json(path)["config"], TrainConfig.model_validate(record.settings))


def is_scored_after_training(root: Path, trial_id: str) -> bool:
    """Return whether a trial's scores are newer than its model."""
    folder = SweepFolder(root).trial(trial_id)
    scores, trained = folder / "scores.json", folder / "train.json"
    return scores.exists() and scores.stat().st_mtime >= trained.stat().st_mtime


def train_result(root: Path, trial_id: str) -> TrainResult | None:
    """Return the result of a trained trial; None if it has not been trained."""
    path = SweepFolder(root).trial(trial_id) / "train.json"
    return TrainResult.from_record(read_json(path)["result"]) if path.exists() else None


def score(
    root: Path,
    kind: Literal["trial", "base"],
    key: str,
    base: str,
    model_path: str,
    settings: dict[str, Any],
    evals: dict[str, Any],
    num_threads: int,
    *,
    opponent: str | None = None,
    on_all_ranks: bool = False,
) -> float:
    """Score the model of trial `key`, or the untuned model of baseline `key`.

    Returns the duration in seconds.

    Args:
        base: the key of the baseline whose held-out examples are scored.
        opponent: as in `TrialRecord`; `key` for a trial with PLW 0, which is its own opponent.
        on_all_ranks: share the work with the trial's other ranks, which call `help_to_score`.
    """
    folder = SweepFolder(root)
    out_dir = folder.baseline(key) if kind == "base" else folder.trial(key)
    began = time.monotonic()
    with redirect_output(out_dir / "log.txt"), ExitStack() as stack:
        _log_to_stderr()
        from evals.engine.helper_ranks import helper_ranks
        from evals.heldout.examples import load_examples
        from evals.run import score_model
        from trainers.models.loading import resolve_model_path

        # Before anything that may fail: the other ranks wait until this block ends.
        helpers = stack.enter_context(helper_ranks()) if on_all_ranks else None
        config, train = EvalConfig.model_validate(evals), TrainConfig.model_validate(settings)
        score_model(
            **_model_arguments(train, model_path, num_threads),
            helpers=helpers,
            config=config,
            examples=load_examples(
                folder.heldout(base), may_be_empty=not config.uses_heldout_examples
            ),
            out_dir=out_dir,
            training=_training_examples(train.data, config),
            untuned_path=_at_revision(resolve_model_path(train.model.path), train.model.revision),
            plw_0_path=_plw_0_path(folder, key, model_path, opponent),
            on_progress=_log_progress(),
        )
    return time.monotonic() - began


def help_to_score(
    root: Path,
    kind: Literal["trial", "base"],
    key: str,
    model_path: str,
    settings: dict[str, Any],
    evals: dict[str, Any],
    num_threads: int,
) -> None:
    """Do a share of the work of rank 0, which calls `score`, until it has finished."""
    folder = SweepFolder(root)
    out_dir = folder.baseline(key) if kind == "base" else folder.trial(key)
    with redirect_output(out_dir / "log.txt"):
        _log_to_stderr()
        from evals.run import help_scoring

        train = TrainConfig.model_validate(settings)
        help_scoring(
            **_model_arguments(train, model_path, num_threads),
            config=EvalConfig.model_validate(evals),
        )
        # As after training.
        gc.collect()


def _model_arguments(train: TrainConfig, model_path: str, num_threads: int) -> dict[str, Any]:
    """Return the arguments that all ranks need to load a model."""
    return {
        "model_path": _at_revision(model_path, train.model.revision),
        "template": train.data.template,
        "template_args": train.data.template_args,
        "max_length": train.data.max_length,
        "truncation_side": train.data.truncation_side,
        "num_threads": num_threads,
    }


def _plw_0_path(
    folder: SweepFolder, key: str, model_path: str, opponent: str | None
) -> str | Path | None:
    if opponent is None or opponent == key:
        return opponent and model_path
    return folder.pandalm_outputs(opponent)


def _log_progress() -> Callable[[str, int, int], None]:
    """Return a function that logs the progress of evaluations, at most once per minute.

    The log is also the sign that a long evaluation still runs.
    """
    logged_at = time.monotonic()

    def log(name: str, num_done: int, num_items: int) -> None:
        nonlocal logged_at
        if time.monotonic() - logged_at >= LOG_EVERY_S:
            logged_at = time.monotonic()
            logging.info("%s: %d of %d items", name, num_done, num_items)

    return log


def _training_examples(data: DataConfig, evals: EvalConfig) -> "Sequence[Example] | None":
    """Return a trial's training examples; None if they cannot be read and no metric needs them.

    Raises:
        InputError: the examples cannot be read, but `evals.memorisation` needs them.
    """
    from trainers.data.tokenize import read_split

    try:
        return read_split(data).train
    except InputError as error:
        if evals.memorisation is not None:
            raise
        logging.warning("overlap with the training data was not checked: %s", error)
        return None


def _at_revision(model_path: str, revision: str | None) -> str:
    """Return the local folder of a hub model at `revision`; return a local folder unchanged."""
    if revision is None or Path(model_path).is_dir():
        return model_path
    from huggingface_hub import snapshot_download

    return snapshot_download(model_path, revision=revision)


def mark_started(record: TrialRecord) -> TrialRecord:
    """Return the record of a trial whose ranks have started."""
    return record.model_copy(
        update={
            "state": "training",
            "error": None,
            "failure": None,
            "note": None,
            "is_scored_beside": False,
            "started_at": record.started_at or now(),
        }
    )


def mark_trained(record: TrialRecord, result: TrainResult) -> TrialRecord:
    """Return the record of a trained trial that waits for its scores."""
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
            "exported_step": result.exported_step,
            "last_heldout_completion_loss": result.last_heldout_completion_loss,
            "exported_heldout_completion_loss": result.exported_heldout_completion_loss,
        }
    )


def mark_scored(record: TrialRecord, eval_seconds: float) -> TrialRecord:
    """Return the record of a finished trial."""
    return record.model_copy(
        update={
            "state": "done",
            "note": None,
            "error": None,
            "failure": None,
            "eval_seconds": eval_seconds,
            "ended_at": now(),
        }
    )


def mark_interrupted(record: TrialRecord) -> TrialRecord:
    """Return the record of a trial that was interrupted together with its sweep."""
    return record.model_copy(update={"state": "interrupted", "note": None, "ended_at": now()})


def mark_stopped(record: TrialRecord) -> TrialRecord:
    """Return the record of a trial that the scheduler has stopped early."""
    return record.model_copy(update={"state": "stopped", "note": None, "ended_at": now()})


def failure_kind(error: BaseException) -> str:
    """Return the kind of failure as named in the spec's `retries`, or `input` (never retried)."""
    if isinstance(error, TrainingError):
        return error.kind
    if isinstance(error, InputError):
        return "input"
    return "out_of_memory" if is_out_of_memory(error) else "crash"


def is_node_lost(error: BaseException) -> bool:
    """Return whether Ray reports the death or the preemption of a node, also of a single rank's."""
    causes = (error, *getattr(error, "worker_failures", {}).values())
    return any(
        getattr(cause, "preempted", False) or "node has died" in str(cause) for cause in causes
    )


def error_reason(error: BaseException) -> str:
    """Return the message of an error, as one line."""
    if found := _LOW_MEMORY.search(str(error)):
        return (
            f"Ray killed a process because {found['used']} of {found['limit']} GiB of its "
            "machine's memory were in use; close other programs, set "
            "resources.max_concurrent_trials, or use less memory in each trial"
        )
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def mark_failed(record: TrialRecord, reason: str, failure: str | None) -> TrialRecord:
    """Return the record of a failed trial, with the reason as one line and the kind of failure."""
    return record.model_copy(
        update={
            "state": "failed",
            "note": None,
            "error": reason,
            "failure": failure,
            "ended_at": now(),
        }
    )


def _log_to_stderr() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
