"""A config for axolotl."""

from pathlib import Path
from typing import Any

from orchestrator.final.frameworks import (
    Export,
    Source,
    common_notes,
    header,
    normalization_note,
    refuse_fraction,
    settings_yaml,
    trainer_settings,
)
from orchestrator.final.tokens import labelled_lines
from trainers.foundation.errors import InputError, Problem

# axolotl 0.18: train_on_inputs, roles_to_train and a turn's `train` or `weight` make labels of
# -100 or not; a weight other than 0 counts as 1.
_WHY = "train_on_inputs, roles_to_train and a turn's weight only switch tokens on and off"

# What it calls otherwise than transformers' TrainingArguments do.
_NAMES = {
    "per_device_train_batch_size": "micro_batch_size",
    "num_train_epochs": "num_epochs",
    "lr_scheduler_type": "lr_scheduler",
}


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
    recipe = trainer_settings(source)
    del recipe["label_smoothing_factor"]  # 0, by the check above
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
        "optimizer": "adamw_torch",
        "bf16": config.deepspeed.precision == "bfloat16",
        **{_NAMES.get(name, name): value for name, value in recipe.items()},
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
