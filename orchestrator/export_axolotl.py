"""A config for axolotl."""

from pathlib import Path
from typing import Any

from orchestrator.export import (
    Export,
    Source,
    common_notes,
    header,
    normalization_note,
    refuse_fraction,
    scheduler_name,
    settings_yaml,
)
from orchestrator.export_tokens import labelled_lines
from trainers.errors import InputError, Problem

# axolotl 0.18: train_on_inputs, roles_to_train and a turn's `train` or `weight` make labels of
# -100 or not; a weight other than 0 counts as 1.
_WHY = "train_on_inputs, roles_to_train and a turn's weight only switch tokens on and off"


def axolotl_export(source: Source, out: Path) -> Export:
    """A config that trains with axolotl, and its data in tokens.

    Raises:
        InputError: a weight lies between 0 and 1, or labels are smoothed.
    """
    refuse_fraction(source, "axolotl", _WHY)
    if source.config.loss.label_smoothing:
        raise InputError(
            Problem(
                message="axolotl has no setting for loss.label_smoothing",
                fix="export to trl, or --set loss.label_smoothing=0",
            )
        )
    notes = [normalization_note(source, "axolotl"), *common_notes(source)]
    if source.num_workers > 1:
        notes.append(
            "axolotl divides by the tokens of each GPU and averages over GPUs, so those of a GPU "
            "with few of them count more than here"
        )
    data = f"{out.stem}.train.jsonl"
    comment = "".join(f"# {line}\n" for line in header(source, "axolotl", notes))
    text = comment + settings_yaml(_settings(source, out, str(out.absolute().with_name(data))))
    command = f"axolotl train {out}"
    return Export({out.name: text, data: labelled_lines(source)}, notes, command)


def _settings(source: Source, out: Path, data: str) -> dict[str, Any]:
    config = source.config
    optimizer, schedule = config.optimizer, config.schedule
    settings: dict[str, Any] = {
        "base_model": source.model_path,
        "revision_of_model": config.model.revision,
        "trust_remote_code": config.model.trust_remote_code,
        "attn_implementation": config.model.attention,
        # Tokens with labels, so no template or mask of axolotl's own takes part.
        "datasets": [{"path": data, "ds_type": "json", "type": None}],
        "val_set_size": 0.0,
        "dataset_prepared_path": f"{out.stem}-prepared",
        "output_dir": f"{out.stem}-model",
        "sequence_len": config.data.max_length,
        "sample_packing": False,
        "pad_to_sequence_len": False,
        "micro_batch_size": source.micro_batch_size,
        "gradient_accumulation_steps": source.accumulation_steps,
        "num_epochs": schedule.epochs,
        "max_steps": schedule.steps,
        "optimizer": "adamw_torch",
        "learning_rate": optimizer.learning_rate,
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "adam_epsilon": optimizer.epsilon,
        "max_grad_norm": optimizer.max_grad_norm,
        "lr_scheduler": scheduler_name(source),
        "warmup_steps": source.warmup_steps,
        "bf16": config.deepspeed.precision == "bfloat16",
        "gradient_checkpointing": config.deepspeed.gradient_checkpointing,
        "logging_steps": config.log_every_steps,
        "seed": config.seed,
    }
    if config.lora is not None:
        settings |= {
            "adapter": "lora",
            "lora_r": config.lora.rank,
            "lora_alpha": config.lora.alpha,
            "lora_dropout": config.lora.dropout,
            "lora_target_modules": config.lora.target_modules,
            "lora_target_linear": config.lora.target_modules is None,
        }
    # What is null is axolotl's own default, but for the type of the data.
    return {key: value for key, value in settings.items() if value is not None}
