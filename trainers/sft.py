"""One supervised fine-tune, read from top to bottom: `train` is the whole of it."""

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NoReturn

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainers.config import TrainConfig
from trainers.data.batches import num_steps, step_window
from trainers.data.roles import Encoded
from trainers.data.tokenized import EncodedExamples
from trainers.data.training_data import read_inputs
from trainers.engine.memory import advice
from trainers.engine.ranks import Ranks, join_ranks
from trainers.engine.zero import ZeroEngine
from trainers.foundation.errors import InputError, Problem, TrainingError
from trainers.foundation.files import read_json, write_json
from trainers.foundation.object_store import ObjectStore
from trainers.heldout import measure_heldout_loss
from trainers.loss import MODEL_PREFIX, WeightedPromptLM, check_counted
from trainers.models.loading import load_model
from trainers.models.lora import add_lora, merge_lora, save_adapter
from trainers.models.packed_attention import use_packed_attention
from trainers.models.prompt_format import write_trained_as
from trainers.runs.checkpoint import (
    CHECKPOINTS,
    CheckpointWriter,
    check_disk,
    check_same_checkpoint,
    export_model,
    latest_checkpoint,
    load_weights,
    restore_engine,
)
from trainers.runs.diagnostics import distance, distance_by_layer, loss_rsd
from trainers.runs.metrics_file import MetricsFile, losses_of_every
from trainers.runs.remote_run import fetch_run, store_result
from trainers.runs.results import StepMetrics, TrainResult
from trainers.runs.stop_signals import Interrupted, Stop, Stopped, agreed_stop, termination
from trainers.schedule import learning_rate
from trainers.step import BatchLoss, accumulate_gradient

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def train(
    config: TrainConfig,
    output_dir: Path,
    on_step: Callable[[StepMetrics], None] | None = None,
    should_stop: Callable[[], Stop | None] | None = None,
    store: ObjectStore | None = None,
) -> TrainResult:
    """Fine-tune as `config` says and leave the model in `output_dir / "model"`.

    Every rank calls it with the same arguments. A run that was cut short goes on from its last
    checkpoint; one that had finished returns its result at once.

    Args:
        on_step: called on every rank at every logged step, after `metrics.jsonl` was written.
        should_stop: asked by every rank after every step; one rank's wish is enough.
        store: keeps checkpoints and result, where `output_dir` is no folder that the ranks share.

    Raises:
        InputError: model, data or settings do not fit.
        TrainingError: the loss or its gradient is not finite, and the parameters were not touched
            by that step; or memory or disk were too small, or the store failed.
        Interrupted: SIGTERM or `should_stop` asked for a checkpoint, which is there.
        Stopped: `should_stop` asked to discard the run.
    """
    if store is not None:
        fetch_run(store, output_dir)
    finished = finished_result(config, output_dir)
    if finished is not None:
        return finished
    run = _start(config, output_dir)
    settings = config.model_dump(mode="json")
    metrics_file = MetricsFile(output_dir, settings, run.ranks)
    started = time.monotonic()
    tokens_seen, metrics = run.tokens_seen, None
    checkpoints = CheckpointWriter(
        run.engine,
        output_dir / CHECKPOINTS,
        settings,
        keep=config.checkpoint.keep,
        store=store,
    )
    with termination() as terminated, _advice_on_memory(run, config):
        for step in range(run.first_step, run.total_steps):
            metrics = _run_step(run, config, step)
            checkpoints.settle(wait=False)
            tokens_seen += metrics.num_tokens
            is_last = metrics.step == run.total_steps
            is_measured = _is_due(metrics.step, config.log_heldout_every_steps, is_last)
            if is_measured:
                metrics = _with_heldout_loss(run, config, metrics)
            if is_measured or _is_due(metrics.step, config.log_every_steps, is_last):
                metrics_file.append(metrics)
                if on_step is not None:
                    on_step(metrics)
            stop = agreed_stop(run.ranks, terminated, should_stop)
            is_due = _is_due(metrics.step, config.checkpoint.every_steps, False)
            if stop == "checkpoint" or (is_due and not is_last and stop is None):
                checkpoints.begin(step=metrics.step, tokens=tokens_seen)
            if stop is not None:
                _end_early(run, checkpoints, stop, metrics.step)
    checkpoints.settle(wait=True)
    seconds = time.monotonic() - started
    return _finish(run, config, output_dir, metrics, tokens_seen, seconds, store)


@dataclass(frozen=True)
class _Run:
    """A fine-tune that is ready for step `first_step`.

    `origin` is a copy of the pre-trained weights, where training needs one at hand.
    """

    ranks: Ranks
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    engine: ZeroEngine
    examples: EncodedExamples
    heldout: list[Encoded]
    num_parameters: int
    origin: dict[str, torch.Tensor] | None
    total_steps: int
    first_step: int
    tokens_seen: int

    @property
    def pad_token_id(self) -> int:
        """What padding holds, which never matters: nothing that counts attends to it."""
        pad_token_id = self.tokenizer.pad_token_id
        return pad_token_id if isinstance(pad_token_id, int) else 0


def _start(config: TrainConfig, output_dir: Path) -> _Run:
    """Load model and data, build the engine, and resume where there is a checkpoint."""
    ranks = join_ranks()
    inputs = read_inputs(
        config.model,
        config.data,
        with_heldout=config.log_heldout_every_steps is not None,
        is_first=ranks.is_first,
    )
    examples = inputs.examples
    check_counted(examples.target_counts(), config.loss)
    total_steps = num_steps(len(examples), config.batch.global_batch_size, config.schedule)
    checkpoint = latest_checkpoint(output_dir / CHECKPOINTS, config.model_dump(mode="json"))
    check_same_checkpoint(ranks, checkpoint)
    torch.manual_seed(config.seed)
    model = load_model(config.model, DTYPES[config.deepspeed.precision])
    num_parameters = model.num_parameters()
    if config.lora is not None:
        add_lora(model, config.lora)
    if config.deepspeed.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if config.batch.packing:
        use_packed_attention(model)
    wrapped = WeightedPromptLM(model, config.loss.label_smoothing).train()
    needs_origin = config.optimizer.distance_penalty > 0 or config.log_distance_every_steps
    origin = _copy_of(wrapped) if needs_origin else None
    if checkpoint is not None:
        load_weights(wrapped, checkpoint)
    engine = ZeroEngine(
        wrapped,
        optimizer=config.optimizer,
        deepspeed_config=config.deepspeed,
        ranks=ranks,
        micro_batch_size=config.batch.micro_batch_size,
    )
    if checkpoint is not None:
        restore_engine(engine, checkpoint)
        log.info("resumed from step %d of %d", checkpoint.step, total_steps)
    return _Run(
        ranks=ranks,
        tokenizer=inputs.tokenizer,
        model=model,
        engine=engine,
        examples=examples,
        heldout=inputs.heldout,
        num_parameters=num_parameters,
        origin=origin,
        total_steps=total_steps,
        first_step=checkpoint.step if checkpoint else 0,
        tokens_seen=checkpoint.tokens if checkpoint else 0,
    )


def _run_step(run: _Run, config: TrainConfig, step: int) -> StepMetrics:
    """One optimizer step, `step` counting from 0."""
    started = time.monotonic()
    # Seeding by step makes dropout the same whether or not the run was resumed here.
    torch.manual_seed(hash((config.seed, step, run.ranks.rank)) % 2**63)
    window = step_window(step, len(run.examples), config.batch.global_batch_size, config.seed)
    batch_loss = accumulate_gradient(
        run.engine,
        [run.examples[index] for index in window],
        loss=config.loss,
        batch=config.batch,
        max_length=config.data.max_length,
        pad_token_id=run.pad_token_id,
    )
    ids = [run.examples[index].id for index in window]
    # All ranks hold the same sums, so all stop, before the optimizer moves.
    if not math.isfinite(batch_loss.loss):
        raise _not_finite(f"the loss of step {step + 1} is {batch_loss.loss}", batch_loss, ids)
    rate = learning_rate(step, run.total_steps, config.optimizer, config.schedule)
    penalty = config.optimizer.distance_penalty
    if run.origin is not None and penalty > 0:
        run.engine.pull_towards(run.origin, min(1.0, rate * penalty))
    grad_norm = run.engine.step(rate)
    if not math.isfinite(grad_norm):
        raise _not_finite(f"the gradient of step {step + 1} is not finite", batch_loss, ids)
    every = config.log_distance_every_steps
    measured = None
    if run.origin is not None and every is not None and (step + 1) % every == 0:
        measured = distance(run.engine.squared_distances(run.origin))
    return StepMetrics(
        step=step + 1,
        total_steps=run.total_steps,
        time=time.time(),
        learning_rate=rate,
        grad_norm=grad_norm,
        tokens_per_second=batch_loss.num_tokens / (time.monotonic() - started),
        distance=measured,
        **asdict(batch_loss),
    )


def _is_due(step: int, every_steps: int | None, is_last: bool) -> bool:
    """Whether what is done every so many steps, and at the last one, is due after `step`."""
    return every_steps is not None and (is_last or step % every_steps == 0)


def _with_heldout_loss(run: _Run, config: TrainConfig, metrics: StepMetrics) -> StepMetrics:
    found = measure_heldout_loss(
        run.engine,
        run.heldout,
        batch=config.batch,
        max_length=config.data.max_length,
        pad_token_id=run.pad_token_id,
    )
    return replace(
        metrics,
        heldout_completion_loss=found.completion_loss,
        heldout_prompt_loss=found.prompt_loss,
    )


def _end_early(run: _Run, checkpoints: CheckpointWriter, stop: Stop, step: int) -> NoReturn:
    """Leave nothing half done on disk or in memory: warm ranks go on with another run."""
    if stop == "discard":
        checkpoints.discard()
    else:
        checkpoints.settle(wait=True)
    run.engine.destroy()
    raise Interrupted if stop == "checkpoint" else Stopped(step)


def _finish(
    run: _Run,
    config: TrainConfig,
    output_dir: Path,
    metrics: StepMetrics | None,
    tokens_seen: int,
    seconds: float,
    store: ObjectStore | None,
) -> TrainResult:
    """Export the model, then write the result, whose existence means that the run is done."""
    squared = _export(run, config, output_dir)
    run.engine.destroy()
    # Only the first rank's, where the ranks share no folder.
    steps = output_dir / "metrics.jsonl"
    losses = losses_of_every(steps, config.log_every_steps) if steps.exists() else []
    result = TrainResult(
        model_path=str(output_dir / "model"),
        steps=run.total_steps,
        num_tokens=tokens_seen,
        seconds=seconds,
        tokens_per_second=(tokens_seen - run.tokens_seen) / seconds,
        completion_loss=metrics.completion_loss if metrics else None,
        prompt_loss=metrics.prompt_loss if metrics else None,
        loss_rsd=loss_rsd(losses),
        distance=distance(squared),
        distance_by_layer=distance_by_layer(squared),
        device=run.ranks.device_name,
    )
    if run.ranks.is_first:
        record = {"config": config.model_dump(mode="json"), "result": asdict(result)}
        if store is not None:
            store_result(store, output_dir, record)
        write_json(output_dir / "train.json", record)
    if run.ranks.is_first or store is not None:
        # The model is the result; the checkpoints only served to get there.
        shutil.rmtree(output_dir / CHECKPOINTS, ignore_errors=True)
    run.ranks.barrier()
    return result


def _export(run: _Run, config: TrainConfig, output_dir: Path) -> dict[str, float]:
    """Write the model; returns each parameter's squared distance from where it began.

    Under LoRA only the first rank knows the distances.
    """
    squared = {} if config.lora is not None else _squared_distances(run, config)
    weights = {
        name.removeprefix(MODEL_PREFIX): weight
        for name, weight in run.engine.full_state_dict().items()
        if name.startswith(MODEL_PREFIX)
    }
    size = run.num_parameters * run.model.dtype.itemsize
    check_disk(run.ranks, output_dir, size, "the trained model")
    if run.ranks.is_first:
        if config.lora is not None:
            save_adapter(weights, config.lora, config.model.path, output_dir / "adapter")
            weights, squared = merge_lora(weights, config.lora)
        export_model(weights, run.model, run.tokenizer, output_dir / "model")
        write_trained_as(output_dir / "model", config.data)
    run.ranks.barrier()
    return squared


def _squared_distances(run: _Run, config: TrainConfig) -> dict[str, float]:
    origin = run.origin
    if origin is None:
        # Read again, so that no copy takes memory while there are activations.
        pretrained = WeightedPromptLM(load_model(config.model, run.model.dtype))
        origin = {name: parameter.detach() for name, parameter in pretrained.named_parameters()}
    return run.engine.squared_distances(origin)


def finished_result(config: TrainConfig, output_dir: Path) -> TrainResult | None:
    """The result of a run that has finished in `output_dir`, if it had these settings.

    Raises:
        InputError: a run with other settings has finished there.
    """
    path = output_dir / "train.json"
    if not path.exists():
        return None
    record = read_json(path)
    if record["config"] != config.model_dump(mode="json"):
        raise InputError(
            Problem(
                message="the folder holds the result of a run with other settings",
                where=str(output_dir),
                fix="give another output folder",
            )
        )
    return TrainResult(**record["result"])


def _not_finite(what: str, loss: BatchLoss, example_ids: list[str]) -> TrainingError:
    shown = ", ".join(example_ids[:8]) + (" ..." if len(example_ids) > 8 else "")
    return TrainingError(
        f"{what} (loss of completion tokens {loss.completion_loss}, of prompt tokens "
        f"{loss.prompt_loss}) on examples {shown}; the parameters were not moved by it; try a "
        "lower learning rate or look at those examples",
        kind="divergence",
    )


def _copy_of(model: WeightedPromptLM) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@contextmanager
def _advice_on_memory(run: _Run, config: TrainConfig) -> Iterator[None]:
    """Turn running out of memory into a TrainingError that says what to change."""
    try:
        yield
    except RuntimeError as error:
        is_cuda = isinstance(error, torch.OutOfMemoryError)
        if not is_cuda and "DefaultCPUAllocator" not in str(error):
            raise
        found = advice(run.num_parameters, config, run.ranks.world_size)
        raise TrainingError(
            f"a rank ran out of memory on {run.ranks.device}: {found}", kind="out_of_memory"
        ) from error
