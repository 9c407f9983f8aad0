"""Export the model of a run: weights, tokenizer, prompt format, and the adapter with LoRA."""

import shutil
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainers.config import TrainConfig
from trainers.engine.pretrained import measure_squared_distances
from trainers.foundation.files import apply_folder_mode
from trainers.loss import MODEL_PREFIX
from trainers.models.lora import is_lora_factor, merge_lora, save_adapter
from trainers.models.prompt_format import write_prompt_format
from trainers.models.quantization import full_weights, mark_as_full
from trainers.run_setup import TrainingRun, pretrained_reader
from trainers.runs.checkpoint import check_disk_space


def write_model(run: TrainingRun, config: TrainConfig, folder: Path) -> dict[str, float]:
    """Write `folder / "model"` and, with LoRA, `folder / "adapter"`; collective, between steps.

    Returns each parameter's squared distance from its pre-trained value. With LoRA, only the main
    rank returns the distances of the merged weights. The result is empty without
    `log_final_distance`.

    Raises:
        TrainingError: the disk has not enough space.
    """
    is_measured = config.log_final_distance
    is_read = is_measured and (config.lora is None or bool(config.lora.modules_to_save))
    squared = squared_distances(run, config) if is_read else {}
    weights = {
        name.removeprefix(MODEL_PREFIX): weight
        for name, weight in run.engine.full_state_dict().items()
        if name.startswith(MODEL_PREFIX)
    }
    size = run.num_parameters * run.model.dtype.itemsize
    check_disk_space(run.ranks, folder, size, "the trained model")
    if run.ranks.is_main:
        if config.lora is not None:
            adapter = folder / "adapter"
            save_adapter(weights, run.model, config.lora, config.model.path, adapter)
            weights, merged = merge_lora(full_weights(weights, run.model), run.model)
            mark_as_full(run.model)
            squared = {**squared, **merged} if is_measured else {}
        export_model(weights, run.model, run.tokenizer, folder / "model", run.end_token_id)
        write_prompt_format(folder / "model", config.data)
    run.ranks.barrier()
    return squared


def export_model(
    weights: dict[str, Tensor],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    end_token_id: int,
) -> None:
    """Write the model for `from_pretrained`: safetensors, tokenizer and chat template.

    Args:
        weights: all weights, by the model's parameter names.
        end_token_id: the token that ends a completion in training; generation stops at it.
    """
    if model.generation_config is not None:
        configured = model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        if end_token_id not in ids:
            model.generation_config.eos_token_id = [id for id in ids if id is not None] + [
                end_token_id
            ]
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary, state_dict=weights)
    tokenizer.save_pretrained(temporary)
    apply_folder_mode(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)


def squared_distances(run: TrainingRun, config: TrainConfig) -> dict[str, float]:
    """Return the squared distance of each trained weight from its pre-trained value; collective."""
    held = run.pretrained
    if held is not None:
        return measure_squared_distances(run.engine, lambda name, start, size: held[name])
    read = pretrained_reader(config, run.model.dtype, run.ranks, run.pretrained_files)
    return measure_squared_distances(run.engine, read, lambda name: not is_lora_factor(name))
