"""Set up a run: load model and data, build the engine, and restore the latest checkpoint."""

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainers.config import TrainConfig
from trainers.data.batches import num_steps
from trainers.data.roles import EncodedExample
from trainers.data.tokenized import EncodedExamples
from trainers.data.training_data import check_token_ids, load_training_data
from trainers.engine.flat_tensors import read_slice
from trainers.engine.performance import (
    ModelFlops,
    model_flops,
)
from trainers.engine.pretrained import ReadSlice, own_partitions
from trainers.engine.ranks import Ranks
from trainers.engine.sharding import count_parameters, full_shape, sharded_loading
from trainers.engine.zero import ZeroEngine
from trainers.foundation.errors import InputError, Problem
from trainers.loss import MODEL_PREFIX, WeightedPromptLM
from trainers.models.compatibility import small_model
from trainers.models.compiled_layers import compile_layers
from trainers.models.fused_kernels import apply_fused_kernels
from trainers.models.loading import check_max_length, load_model, logit_map
from trainers.models.lora import add_lora, is_lora_factor
from trainers.models.packed_attention import PROBED_WINDOW, enable_packed_attention
from trainers.models.pretrained_files import PretrainedFiles, open_pretrained_files
from trainers.runs.checkpoint import (
    CHECKPOINTS,
    check_same_checkpoint,
    latest_checkpoint,
    load_weights,
    restore_engine,
)
from trainers.runs.step_traces import check_profile_steps
from trainers.schedule import check_schedule
from trainers.token_weights import check_data_weights, check_nonzero_weights

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class TrainingRun:
    """A fine-tune that is ready for step `first_step`.

    `pretrained` holds this rank's partitions of the weights before training; None if training does
    not need them. `pretrained_files` is None if the files cannot be read by slices.
    """

    ranks: Ranks
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    engine: ZeroEngine
    examples: EncodedExamples
    heldout: list[EncodedExample]
    num_parameters: int
    flops: ModelFlops | None
    num_embeddings: int
    end_token_id: int
    pretrained: dict[str, torch.Tensor] | None
    pretrained_files: PretrainedFiles | None
    total_steps: int
    first_step: int
    tokens_seen: int

    @property
    def pad_token_id(self) -> int:
        """Return the token id of padding.

        Any valid id works, because no token with a weight attends to padding. A pad token that was
        added only to the tokenizer has no row in the embedding matrix.
        """
        pad_token_id = self.tokenizer.pad_token_id
        return pad_token_id if pad_token_id in range(self.num_embeddings) else 0


def set_up(config: TrainConfig, output_dir: Path, ranks: Ranks) -> TrainingRun:
    """Load model and data, build the engine, and restore the latest checkpoint, if any."""
    check_max_length(config.model, config.data.max_length)
    training_data = load_training_data(
        config.model,
        config.data,
        with_heldout=config.measures_heldout_loss,
        is_main=ranks.is_main,
    )
    examples = training_data.examples
    check_nonzero_weights(examples, config.loss)
    check_data_weights(examples, config.loss)
    total_steps = num_steps(len(examples), config.batch.global_batch_size, config.schedule)
    check_schedule(config.schedule, total_steps)
    check_profile_steps(config.profile_steps, total_steps)
    checkpoint = latest_checkpoint(output_dir / CHECKPOINTS, config)
    check_same_checkpoint(ranks, checkpoint)
    torch.manual_seed(config.seed)
    model, num_parameters, flops = _build_model(config, ranks)
    num_embeddings = full_shape(model.get_input_embeddings().weight)[0]
    check_token_ids(examples, training_data.heldout, num_embeddings, training_data.tokenizer)
    wrapped = WeightedPromptLM(model, config.loss.label_smoothing, logit_map(config.model)).train()
    files = _open_pretrained_files(config, model, ranks)
    if checkpoint is not None:
        load_weights(wrapped, checkpoint)
    engine = ZeroEngine(
        wrapped,
        optimizer=config.optimizer,
        deepspeed_config=config.deepspeed,
        ranks=ranks,
        micro_batch_size=config.batch.micro_batch_size,
    )
    pretrained = None
    if config.optimizer.l2_sp > 0 or config.log_distance_every_steps is not None:
        pretrained = own_partitions(engine, pretrained_reader(config, model.dtype, ranks, files))
    if checkpoint is not None:
        restore_engine(engine, checkpoint)
        log.info("resumed from step %d of %d", checkpoint.step, total_steps)
    return TrainingRun(
        ranks=ranks,
        tokenizer=training_data.tokenizer,
        model=model,
        engine=engine,
        examples=examples,
        heldout=training_data.heldout,
        num_parameters=num_parameters,
        flops=flops,
        num_embeddings=num_embeddings,
        end_token_id=training_data.end_token_id,
        pretrained=pretrained,
        pretrained_files=files,
        total_steps=total_steps,
        first_step=checkpoint.step if checkpoint else 0,
        tokens_seen=checkpoint.tokens if checkpoint else 0,
    )


def _packing_probes(
    config: TrainConfig, model: PreTrainedModel, *, is_sharded: bool
) -> list[PreTrainedModel]:
    """Return the models for the check of packing.

    The check runs a forward pass, which a partitioned model cannot. If the model has a sliding
    window, the probe's is shorter than the checked sequences.

    Raises:
        InputError: no small model of the class runs.
    """
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    if not (is_sharded or window):
        return [model]
    settings = {"sliding_window": PROBED_WINDOW} if window else {}
    small = small_model(model.config, config.model.trust_remote_code, **settings)
    if small is None:
        raise InputError(
            Problem(
                message="batch.packing cannot be checked for this model: no small model of its"
                " class runs",
                fix="set batch.packing to false",
            )
        )
    return [small] if is_sharded else [model, small]


def _open_pretrained_files(
    config: TrainConfig, model: PreTrainedModel, ranks: Ranks
) -> PretrainedFiles | None:
    """Return the model's files, if all ranks can read the trained weights from them by slices."""
    trained = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not is_lora_factor(name)
    }
    prefix = str(model.base_model_prefix)
    files = open_pretrained_files(config.model, prefix, trained, ranks.rank)
    [num_readable] = ranks.sum([float(files is not None)])
    return files if num_readable == ranks.world_size else None


def pretrained_reader(
    config: TrainConfig, dtype: torch.dtype, ranks: Ranks, files: PretrainedFiles | None
) -> ReadSlice:
    """Return a function that reads slices of the weights before training.

    Collective without `files`: the model is then loaded again.
    """
    if files is not None:
        return lambda name, start, size: files.read(name.removeprefix(MODEL_PREFIX), start, size)
    loaded = load_model(config.model, dtype, sharding(config, ranks))
    weights = dict(WeightedPromptLM(loaded).named_parameters())
    return lambda name, start, size: read_slice(weights[name], start, size)


def sharding(config: TrainConfig, ranks: Ranks) -> AbstractContextManager[None] | None:
    """Return the context for loading a model in shards; None if each rank loads all of it."""
    is_partitioned = config.deepspeed.zero_stage == 3 and ranks.world_size > 1
    return sharded_loading(config, ranks) if is_partitioned else None


def _build_model(
    config: TrainConfig, ranks: Ranks
) -> tuple[PreTrainedModel, int, ModelFlops | None]:
    """Return the model prepared for training, its parameters without LoRA factors, and its FLOP."""
    shards = sharding(config, ranks)
    quantization = config.lora.quantization if config.lora is not None else None
    model = load_model(config.model, DTYPES[config.deepspeed.precision], shards, quantization)
    num_parameters = count_parameters(model)
    # The matrices of a quantised model have other shapes.
    flops = None if quantization else model_flops(model, is_lora=config.lora is not None)
    if config.lora is not None:
        add_lora(model, config.lora)
    if config.deepspeed.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if config.batch.packing:
        enable_packed_attention(
            model, _packing_probes(config, model, is_sharded=shards is not None)
        )
    # After the check of packing, which runs the model before it is on a GPU.
    if config.model.compile_layers:
        compile_layers(model)
    apply_fused_kernels(model, config.model.fused_kernels, ranks.device)
    return model, num_parameters, flops
