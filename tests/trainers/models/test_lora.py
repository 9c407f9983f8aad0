"""LoRA: its gradient under every ZeRO stage, and the merged and the separate export."""

import json
import math
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.trainers.gradients import Cell, errors, reference_gradient, tiny_model, write_gradients
from tests.trainers.tiny_runs import settings, train_until
from tests.worlds import run_in_world
from trainers.config import LoraConfig, TrainConfig
from trainers.foundation.errors import InputError
from trainers.models.lora import add_lora

pytestmark = pytest.mark.slow

CELLS = [Cell(0.1, "weights", stage, 2, 2, 7, packing=stage == 3, lora=True) for stage in range(4)]


@pytest.fixture(scope="module")
def gradients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    run_in_world(2, write_gradients, CELLS, folder)
    return folder


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_gradient_of_the_factors_equals_float64_reference(cell: Cell, gradients: Path) -> None:
    found = torch.load(gradients / f"{cell.name}.pt")
    assert all(".lora_" in name for name in found)
    overall, worst = errors(found, reference_gradient(cell))
    assert overall < 1e-5
    assert worst < 1e-4


def train_with_lora(folder: Path) -> None:
    lora = {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj", "down_proj"]}
    for stage in (2, 3):
        config = settings(
            folder, lora=lora, deepspeed={"zero_stage": stage, "precision": "float32"}
        )
        train_until(config, folder / f"stage-{stage}", crash_after=6)
        train_until(config, folder / f"stage-{stage}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora-run")
    settings(folder)
    run_in_world(1, train_with_lora, folder)
    return folder


@pytest.mark.parametrize("stage", [2, 3])
def test_merged_model_computes_what_base_and_adapter_do(stage: int, trained: Path) -> None:
    ids = torch.tensor([[5, 9, 33, 70, 12]])
    run = trained / f"stage-{stage}"
    base = AutoModelForCausalLM.from_pretrained(trained / "model")
    with torch.no_grad():
        untuned = base(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(run / "model")(ids).logits
        adapted = peft.PeftModel.from_pretrained(base, str(run / "adapter"))(ids).logits
    torch.testing.assert_close(merged, adapted, rtol=1e-5, atol=1e-6)
    assert (merged - untuned).abs().max() > 1e-3


def test_only_the_targets_move_and_their_distance_is_reported(trained: Path) -> None:
    before = load_file(trained / "model" / "model.safetensors")
    after = load_file(trained / "stage-2" / "model" / "model.safetensors")
    assert after.keys() == before.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "q_proj" in name or "down_proj" in name}
    norm = math.sqrt(sum(float((after[n] - before[n]).double().square().sum()) for n in moved))
    result = json.loads((trained / "stage-2" / "train.json").read_text())["result"]
    assert result["distance"] == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize(
    ("target", "reason"),
    [("nowhere", "nowhere"), ("lm_head", "the output head"), ("embed_tokens", "the embeddings")],
)
def test_targets_that_cannot_be_adapted_are_refused(target: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"lora.target_modules {target} cannot .*{reason}"):
        add_lora(tiny_model(tied=False), LoraConfig(target_modules=[target]))


def test_a_distance_penalty_under_lora_is_refused() -> None:
    settings = {
        "model": {"path": "m"},
        "data": {"path": "d"},
        "lora": {},
        "optimizer": {"distance_penalty": 1.0},
    }
    with pytest.raises(ValueError, match="under lora the pre-trained weights stay"):
        TrainConfig.model_validate(settings)
