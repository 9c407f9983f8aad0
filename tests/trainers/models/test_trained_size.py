"""The planned size of LoRA factors and trained modules is that of peft's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.tiny_model import save_tiny_model
from trainers.config import LoraConfig
from trainers.models.lora import add_lora
from trainers.models.trained_size import count_trained


@pytest.mark.parametrize(
    "settings",
    [
        {"rank": 4},
        {"rank": 4, "target_modules": ["q_proj", "v_proj"]},
        {"rank": 4, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
        {"rank": 4, "modules_to_save": ["lm_head", "norm"]},
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_the_count_is_that_of_the_prepared_model(
    settings: dict[str, Any], tied: bool, tmp_path: Path
) -> None:
    path = save_tiny_model(tmp_path / "model", is_tied=tied)
    config = LoraConfig.model_validate(settings)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    add_lora(model, config)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count_trained(str(path), config) == trained


def test_a_model_of_the_hub_is_unknown() -> None:
    assert count_trained("org/name", LoraConfig()) is None
