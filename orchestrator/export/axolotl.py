"""Export to axolotl: a YAML config."""

from pathlib import Path
from typing import Any

from orchestrator.export.base import (
    Export,
    Recipe,
    check_binary_weights,
    common_notes,
    config_yaml,
    header_lines,
    normalization_note,
    training_arguments,
)
from orchestrator.export.token_labels import labelled_jsonl
from orchestrator.foundation.shell_words import shell_path
from trainers.foundation.errors import InputError, Problem

# axolotl 0.18: train_on_inputs, roles_to_train and a turn's `train` or `weight` set labels to -100
# or keep them; any weight other than 0 counts as 1.
_NO_WEIGHTS = "train_on_inputs, roles_to_train and a turn's weight only turn tokens on and off"

# axolotl's names for arguments that have another name in transformers' TrainingArguments.
_NAMES = {
    "per_device_train_batch_size": "micro_batch_size",
    "num_train_epochs": "num_epochs",
    "lr_scheduler_type": "lr_scheduler",
}


def export_axolotl(recipe: Recipe, out: Path) -> Export:
    """Return a config for axolotl, and the tokenized data.

    Raises:
        InputError: a token weight is neither 0 nor 1, or the recipe has label smoothing.
    """
    check_binary_weights(recipe, "axolotl", _NO_WEIGHTS)
    if recipe.config.loss.label_smoothing:
        raise InputError(
            Problem(
                message="axolotl has no setting for loss.label_smoothing",
                fix="export to trl, or --set loss.label_smoothing=0",
            )
        )
    notes = [normalization_note(recipe, "axolotl"), *common_notes(recipe)]
    if recipe.num_workers > 1:
        notes.append(
            "axolotl divides by the tokens of each GPU and averages over GPUs, so tokens on a GPU "
            "with fewer tokens weigh more than in plw"
        )
    data = f"{out.stem}.train.jsonl"
    settings = _settings(recipe, out, str(out.absolute().with_name(data)))
    text = config_yaml(header_lines(recipe, "axolotl", notes), settings)
    return Export(
        {out.name: text, data: labelled_jsonl(recipe)}, notes, f"axolotl train {shell_path(out)}"
    )


def _settings(recipe: Recipe, out: Path, data: str) -> dict[str, Any]:
    config = recipe.config
    arguments = training_arguments(recipe)
    del arguments["label_smoothing_factor"]  # 0, as checked above
    settings: dict[str, Any] = {
        "base_model": recipe.model_path,
        "revision_of_model": config.model.revision,
        "trust_remote_code": config.model.trust_remote_code,
        "attn_implementation": config.model.attention,
        # The data is tokenized and labelled, so axolotl applies no template and no mask.
        "datasets": [{"path": data, "ds_type": "json", "type": None}],
        "val_set_size": 0.0,
        "dataset_prepared_path": f"{out.stem}-prepared",
        "output_dir": f"{out.stem}-model",
        "sequence_len": config.data.max_length,
        "sample_packing": False,
        "pad_to_sequence_len": False,
        "optimizer": "adamw_torch",
        "bf16": config.deepspeed.precision == "bfloat16",
        **{_NAMES.get(name, name): value for name, value in arguments.items()},
    }
    if config.lora is not None:
        settings |= {
            "adapter": "lora",
            "lora_r": config.lora.rank,
            "lora_alpha": config.lora.alpha,
            "lora_dropout": config.lora.dropout,
            "peft_use_rslora": config.lora.rslora or None,
            "lora_modules_to_save": config.lora.modules_to_save or None,
            "lora_target_modules": config.lora.target_modules,
            "lora_target_linear": config.lora.target_modules is None,
        }
    return settings
