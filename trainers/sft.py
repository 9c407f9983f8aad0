"""One supervised fine-tune. The entry point is `train`; read the module from top to bottom."""

import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch

from trainers.config import TrainConfig, is_same_config
from trainers.data.batches import global_batch_indices
from trainers.data.template_source import DATE, utc_today
from trainers.data.training_data import with_template_date
from trainers.engine.determinism import deterministic_algorithms
from trainers.engine.out_of_memory import explain_out_of_memory
from trainers.engine.performance import (
    measure_performance,
    reset_peak_memory,
)
from trainers.engine.pretrained import apply_l2_sp
from trainers.engine.ranks import Ranks, join_ranks
from trainers.foundation.errors import InputError, Problem, TrainingError
from trainers.foundation.files import read_json, write_json
from trainers.foundation.object_store import ObjectStore
from trainers.heldout import measure_heldout_loss
from trainers.model_export import squared_distances, write_model
from trainers.run_setup import TrainingRun, set_up
from trainers.runs.best_model import BestModel
from trainers.runs.checkpoint import CHECKPOINTS, CheckpointWriter
from trainers.runs.diagnostics import layer_distances, loss_rsd, total_distance
from trainers.runs.metrics_file import MetricsFile, read_losses
from trainers.runs.remote_run import download_run, upload_result
from trainers.runs.results import StepMetrics, TrainResult
from trainers.runs.step_traces import trace_step
from trainers.runs.stop_signals import (
    Interrupted,
    Stopped,
    StopRequest,
    agree_on_stop,
    handle_sigterm,
)
from trainers.schedule import learning_rate
from trainers.step import BatchLoss, accumulate_gradient

log = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    output_dir: Path,
    on_step: Callable[[StepMetrics], None] | None = None,
    get_stop_request: Callable[[], StopRequest | None] | None = None,
    store: ObjectStore | None = None,
) -> TrainResult:
    """Fine-tune with `config` and write the model to `output_dir / "model"`.

    All ranks must call it with the same arguments. An interrupted run resumes from its last
    checkpoint. A finished run returns its result immediately.

    Args:
        on_step: called on every rank at every logged step, after `metrics.jsonl` was written.
        get_stop_request: called on every rank after every step; a request on one rank suffices.
        store: stores checkpoints and result if the ranks do not share `output_dir`.

    Raises:
        InputError: the model, data and settings do not match.
        TrainingError: the loss or its gradient is not finite, in which case that step did not
            change the parameters; or memory or disk space ran out; or the store failed.
        Interrupted: SIGTERM or `get_stop_request` asked for a checkpoint, which was written.
        Stopped: `get_stop_request` asked to discard the run.
    """
    if store is not None:
        download_run(store, output_dir)
    config = with_recorded_date(config, output_dir)
    finished = finished_result(config, output_dir)
    if finished is not None:
        return finished
    ranks = join_ranks()
    config = _with_date_of_start(config, ranks)
    reset_peak_memory(ranks.device)
    with explain_out_of_memory(config, ranks), deterministic_algorithms(config.deterministic):
        return _train(config, output_dir, on_step, get_stop_request, store, ranks)


def _train(
    config: TrainConfig,
    output_dir: Path,
    on_step: Callable[[StepMetrics], None] | None,
    get_stop_request: Callable[[], StopRequest | None] | None,
    store: ObjectStore | None,
    ranks: Ranks,
) -> TrainResult:
    run = set_up(config, output_dir, ranks)
    settings = config.model_dump(mode="json")
    metrics_file = MetricsFile(output_dir, config, run.ranks)
    started = time.monotonic()
    saved_at = started
    tokens_seen, metrics = run.tokens_seen, None
    checkpoints = CheckpointWriter(
        run.engine,
        output_dir / CHECKPOINTS,
        settings,
        keep=config.checkpoint.keep,
        store=store,
    )
    best = None
    if config.export_best_every_steps is not None:
        best = BestModel(output_dir, run.ranks, store, is_resumed=run.first_step > 0)
    with handle_sigterm() as terminated:
        for step in range(run.first_step, run.total_steps):
            with trace_step(step + 1, config.profile_steps, output_dir, run.ranks):
                metrics = _run_step(run, config, step)
            checkpoints.finalize(wait=False)
            tokens_seen += metrics.num_tokens
            is_last = metrics.step == run.total_steps
            is_candidate = _is_due(metrics.step, config.export_best_every_steps, is_last)
            is_measured = is_candidate or _is_due(
                metrics.step, config.log_heldout_every_steps, is_last
            )
            if is_measured:
                metrics = _with_heldout_loss(run, config, metrics)
            if is_measured or _is_due(metrics.step, config.log_every_steps, is_last):
                metrics_file.append(metrics)
                if on_step is not None:
                    on_step(metrics)
            if best is not None and is_candidate:
                write = partial(write_model, run, config)
                best.update(metrics.step, metrics.heldout_completion_loss, write)
            stop, is_late = agree_on_stop(
                run.ranks,
                terminated,
                get_stop_request,
                is_late=_is_late(config.checkpoint.every_minutes, saved_at),
            )
            is_due = is_late or _is_due(metrics.step, config.checkpoint.every_steps, False)
            if stop == "checkpoint" or (is_due and not is_last and stop is None):
                checkpoints.save_async(step=metrics.step, tokens=tokens_seen)
                saved_at = time.monotonic()
            if stop is not None:
                _end_early(run, checkpoints, stop, metrics.step)
    checkpoints.finalize(wait=True)
    seconds = time.monotonic() - started
    return _finish(run, config, output_dir, best, metrics, tokens_seen, seconds, store)


def _with_date_of_start(config: TrainConfig, ranks: Ranks) -> TrainConfig:
    """Return the settings with today's date, if the template shows it and they have no date."""
    today = ranks.from_main(str(config.data.template_args.get(DATE, utc_today())))
    data = with_template_date(config.model, config.data, date.fromisoformat(today))
    return config.model_copy(update={"data": data})


def _run_step(run: TrainingRun, config: TrainConfig, step: int) -> StepMetrics:
    """Run optimizer step `step`, counted from 0."""
    started = time.monotonic()
    # Seeding by step makes dropout independent of the step at which the run was resumed.
    torch.manual_seed(hash((config.seed, step, run.ranks.rank)) % 2**63)
    window = global_batch_indices(
        step, len(run.examples), config.batch.global_batch_size, config.seed
    )
    batch_loss = accumulate_gradient(
        run.engine,
        [run.examples[index] for index in window],
        loss=config.loss,
        batch=config.batch,
        max_length=config.data.max_length,
        pad_token_id=run.pad_token_id,
    )
    ids = [run.examples[index].id for index in window]
    # All ranks have the same sums, so all stop before the optimizer changes a parameter.
    if not math.isfinite(batch_loss.loss):
        raise _not_finite(f"the loss of step {step + 1} is {batch_loss.loss}", batch_loss, ids)
    rate = learning_rate(step, run.total_steps, config.optimizer, config.schedule)
    l2_sp = config.optimizer.l2_sp
    if run.pretrained is not None and l2_sp > 0:
        apply_l2_sp(run.engine, run.pretrained, min(1.0, rate * l2_sp))
    grad_norm = run.engine.step(rate)
    if not math.isfinite(grad_norm):
        raise _not_finite(f"the gradient of step {step + 1} is not finite", batch_loss, ids)
    every = config.log_distance_every_steps
    measured = None
    if run.pretrained is not None and every is not None and (step + 1) % every == 0:
        measured = total_distance(squared_distances(run, config))
    seconds = time.monotonic() - started
    performance = measure_performance(
        run.flops,
        run.ranks,
        run.model.dtype,
        lengths=[len(run.examples[index].input_ids) for index in window],
        num_logits=batch_loss.num_weighted_tokens,
        seconds=seconds,
    )
    return StepMetrics(
        step=step + 1,
        total_steps=run.total_steps,
        time=time.time(),
        learning_rate=rate,
        grad_norm=grad_norm,
        tokens_per_second=batch_loss.num_tokens / seconds,
        distance=measured,
        **asdict(batch_loss),
        **asdict(performance),
    )


def _is_late(every_minutes: float | None, saved_at: float) -> bool:
    """Return whether the last checkpoint, or the start, is `every_minutes` ago."""
    return every_minutes is not None and time.monotonic() - saved_at >= 60 * every_minutes


def _is_due(step: int, every_steps: int | None, is_last: bool) -> bool:
    """Return whether an action is due after `step`: every `every_steps`, and at the last step."""
    return every_steps is not None and (is_last or step % every_steps == 0)


def _with_heldout_loss(run: TrainingRun, config: TrainConfig, metrics: StepMetrics) -> StepMetrics:
    heldout_loss = measure_heldout_loss(
        run.engine,
        run.heldout,
        batch=config.batch,
        max_length=config.data.max_length,
        pad_token_id=run.pad_token_id,
    )
    return replace(
        metrics,
        heldout_completion_loss=heldout_loss.completion_loss,
        heldout_prompt_loss=heldout_loss.prompt_loss,
    )


def _end_early(
    run: TrainingRun, checkpoints: CheckpointWriter, stop: StopRequest, step: int
) -> NoReturn:
    """End the run and clean up, so that the process can continue with another run."""
    if stop == "discard":
        checkpoints.discard()
    else:
        checkpoints.finalize(wait=True)
    run.engine.destroy()
    raise Interrupted if stop == "checkpoint" else Stopped(step)


def _finish(
    run: TrainingRun,
    config: TrainConfig,
    output_dir: Path,
    best: BestModel | None,
    metrics: StepMetrics | None,
    tokens_seen: int,
    seconds: float,
    store: ObjectStore | None,
) -> TrainResult:
    """Export the model, then write train.json, which marks the run as finished."""
    exported = best.record if best is not None else None
    if best is not None and exported is not None:
        best.move_to_output()
        squared = exported.squared_distances
    else:
        squared = write_model(run, config, output_dir)
    run.engine.destroy()
    # If the ranks share no folder, only the main rank has the file.
    metrics_path = output_dir / "metrics.jsonl"
    losses = read_losses(metrics_path, config.log_every_steps) if metrics_path.exists() else []
    result = TrainResult(
        model_path=str(output_dir / "model"),
        steps=run.total_steps,
        num_tokens=tokens_seen,
        seconds=seconds,
        tokens_per_second=(tokens_seen - run.tokens_seen) / seconds,
        completion_loss=metrics.completion_loss if metrics else None,
        prompt_loss=metrics.prompt_loss if metrics else None,
        loss_rsd=loss_rsd(losses),
        distance=total_distance(squared) if config.log_final_distance else None,
        distance_by_layer=layer_distances(squared) if config.log_final_distance else None,
        device=run.ranks.device_name,
        exported_step=exported.step if exported else run.total_steps,
        last_heldout_completion_loss=metrics.heldout_completion_loss if metrics else None,
        exported_heldout_completion_loss=exported.heldout_completion_loss if exported else None,
    )
    if run.ranks.is_main:
        record = {"config": config.model_dump(mode="json"), "result": asdict(result)}
        if store is not None:
            upload_result(store, output_dir, record)
        write_json(output_dir / "train.json", record)
    if run.ranks.is_main or store is not None:
        # A finished run needs no checkpoints.
        shutil.rmtree(output_dir / CHECKPOINTS, ignore_errors=True)
    run.ranks.barrier()
    return result


def with_recorded_date(config: TrainConfig, output_dir: Path) -> TrainConfig:
    """Return the settings with the template's date at the start of the run in `output_dir`."""
    path = output_dir / "config.json"
    recorded = read_json(path)["data"].get("template_args", {}) if path.exists() else {}
    if recorded != {**config.data.template_args, DATE: recorded.get(DATE)}:
        return config  # Without a date, or of another run.
    return config.model_copy(
        update={"data": config.data.model_copy(update={"template_args": recorded})}
    )


def finished_result(config: TrainConfig, output_dir: Path) -> TrainResult | None:
    """Return the result of a finished run with `config` in `output_dir`, or None.

    Raises:
        InputError: a run with other settings finished in `output_dir`.
    """
    path = output_dir / "train.json"
    if not path.exists():
        return None
    record = read_json(path)
    if not is_same_config(record["config"], config):
        raise InputError(
            Problem(
                message="the folder contains the result of a run with other settings",
                where=str(output_dir),
                fix="use another output folder",
            )
        )
    return TrainResult.from_record(record["result"])


def _not_finite(what: str, loss: BatchLoss, example_ids: list[str]) -> TrainingError:
    shown = ", ".join(example_ids[:8]) + (" ..." if len(example_ids) > 8 else "")
    return TrainingError(
        f"{what} (loss of completion tokens {loss.completion_loss}, of prompt tokens "
        f"{loss.prompt_loss}) on examples {shown}; the parameters are unchanged; reduce "
        "optimizer.learning_rate or check these examples",
        kind="divergence",
    )
