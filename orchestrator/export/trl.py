"""Export to TRL: a script for SFTTrainer."""

from pathlib import Path
from pprint import pformat
from typing import Any

from orchestrator.export.base import (
    Export,
    Recipe,
    check_binary_weights,
    common_notes,
    header_lines,
    normalization_note,
    render_script,
    training_arguments,
)
from orchestrator.export.token_labels import labelled_jsonl
from orchestrator.foundation.shell_words import shell_path

# TRL 1.16 has only masks, completion_only_loss and assistant_only_loss; weights are proposed in
# github.com/huggingface/trl/issues/6746.
_NO_WEIGHTS = "its loss masks tokens (completion_only_loss) and has no weights"


def export_trl(recipe: Recipe, out: Path) -> Export:
    """Return a training script for TRL, and the tokenized data.

    Raises:
        InputError: a token weight is neither 0 nor 1.
    """
    check_binary_weights(recipe, "TRL", _NO_WEIGHTS)
    notes = [normalization_note(recipe, "TRL"), *common_notes(recipe)]
    data = f"{out.stem}.train.jsonl"
    script = render_script(
        "trl.py.j2",
        header_lines(recipe, "TRL", notes),
        model=repr(recipe.model_path),
        revision=repr(recipe.config.model.revision),
        data=repr(data),
        settings=pformat(_sft_config(recipe, out), width=96, sort_dicts=False),
        lora=pformat(_lora_config(recipe), width=96, sort_dicts=False),
    )
    launcher = f"accelerate launch --num_processes {recipe.num_workers} "
    command = f"{launcher if recipe.num_workers > 1 else 'python '}{shell_path(out)}"
    return Export({out.name: script, data: labelled_jsonl(recipe)}, notes, command)


def _sft_config(recipe: Recipe, out: Path) -> dict[str, Any]:
    config = recipe.config
    return {
        "output_dir": f"{out.stem}-model",
        "model_init_kwargs": {
            # The optimizer updates float32 weights; `bf16` below sets the precision of computation.
            "dtype": "float32",
            "attn_implementation": config.model.attention,
            "revision": config.model.revision,
        },
        "trust_remote_code": config.model.trust_remote_code,
        "max_length": config.data.max_length,
        "bf16": config.deepspeed.precision == "bfloat16",
        **training_arguments(recipe),
    }


def _lora_config(recipe: Recipe) -> dict[str, Any] | None:
    lora = recipe.config.lora
    if lora is None:
        return None
    return {
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rslora,
        "target_modules": lora.target_modules or "all-linear",
        "modules_to_save": lora.modules_to_save or None,
        "task_type": "CAUSAL_LM",
    }
