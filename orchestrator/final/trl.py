"""A script for TRL's SFTTrainer."""

import pprint
from pathlib import Path
from typing import Any

from orchestrator.final.frameworks import (
    Export,
    Source,
    common_notes,
    header,
    normalization_note,
    refuse_fraction,
    trainer_settings,
)
from orchestrator.final.tokens import labelled_lines

# TRL 1.16 has completion_only_loss and assistant_only_loss, both masks; weights are proposed in
# github.com/huggingface/trl/issues/6746.
_WHY = "its loss masks tokens (completion_only_loss) and has no weights"
_SCRIPT = '''\
"""{header}
"""

from pathlib import Path

from datasets import load_dataset
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

MODEL = {model!r}
REVISION = {revision!r}
DATA = Path(__file__).with_name({data!r})
# Tokens that do not count have the label -100, so completion_only_loss is not needed.
SETTINGS = {settings}
LORA = {lora}


def main() -> None:
    peft_config = None
    if LORA is not None:
        from peft import LoraConfig

        peft_config = LoraConfig(**LORA)
    trainer = SFTTrainer(
        model=MODEL,
        args=SFTConfig(**SETTINGS),
        train_dataset=load_dataset("json", data_files=str(DATA), split="train"),
        processing_class=AutoTokenizer.from_pretrained(MODEL, revision=REVISION),
        peft_config=peft_config,
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
'''


def trl_export(source: Source, out: Path) -> Export:
    """A script that trains with TRL, and its data in tokens.

    Raises:
        InputError: a weight lies between 0 and 1.
    """
    refuse_fraction(source, "TRL", _WHY)
    notes = [normalization_note(source, "TRL"), *common_notes(source)]
    data = f"{out.stem}.train.jsonl"
    script = _SCRIPT.format(
        header="\n".join(header(source, "TRL", notes)).replace("\\", "\\\\").replace('"""', "'''"),
        model=source.model_path,
        revision=source.config.model.revision,
        data=data,
        settings=pprint.pformat(_settings(source, out), width=96, sort_dicts=False),
        lora=pprint.pformat(_lora(source), width=96, sort_dicts=False),
    )
    launcher = f"accelerate launch --num_processes {source.num_workers} "
    command = f"{launcher if source.num_workers > 1 else 'python '}{out}"
    return Export({out.name: script, data: labelled_lines(source)}, notes, command)


def _settings(source: Source, out: Path) -> dict[str, Any]:
    """The arguments of SFTConfig."""
    config = source.config
    return {
        "output_dir": f"{out.stem}-model",
        "model_init_kwargs": {
            "dtype": "float32",  # the weights that are stepped; bf16 below is for the rest
            "attn_implementation": config.model.attention,
            "revision": config.model.revision,
        },
        "trust_remote_code": config.model.trust_remote_code,
        "max_length": config.data.max_length,
        "bf16": config.deepspeed.precision == "bfloat16",
        **trainer_settings(source),
    }


def _lora(source: Source) -> dict[str, Any] | None:
    lora = source.config.lora
    if lora is None:
        return None
    return {
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": lora.target_modules or "all-linear",
        "task_type": "CAUSAL_LM",
    }
