"""LoRA: gradients at every ZeRO stage, and the export of the merged model and the adapter."""

import json
import math
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.trainers.gradients import Cell, errors, reference_gradient, tiny_model, write_gradients
from tests.trainers.tiny_runs import (
    NO_PERSISTENCE,
    settings,
    train_interrupted_and_uninterrupted,
    train_until,
)
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
def test_merged_model_equals_base_model_with_adapter(stage: int, trained: Path) -> None:
    ids = torch.tensor([[5, 9, 33, 70, 12]])
    run = trained / f"stage-{stage}"
    base = AutoModelForCausalLM.from_pretrained(trained / "model")
    with torch.no_grad():
        untuned = base(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(run / "model")(ids).logits
        adapted = peft.PeftModel.from_pretrained(base, str(run / "adapter"))(ids).logits
    torch.testing.assert_close(merged, adapted, rtol=1e-5, atol=1e-6)
    assert (merged - untuned).abs().max() > 1e-3


def test_only_the_targets_change_and_their_distance_is_reported(trained: Path) -> None:
    before = load_file(trained / "model" / "model.safetensors")
    after = load_file(trained / "stage-2" / "model" / "model.safetensors")
    assert after.keys() == before.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "q_proj" in name or "down_proj" in name}
    norm = math.sqrt(sum(float((after[n] - before[n]).double().square().sum()) for n in moved))
    result = json.loads((trained / "stage-2" / "train.json").read_text())["result"]
    assert result["distance"] == pytest.approx(norm, rel=1e-4)


def test_weights_have_the_permissions_of_the_other_files(trained: Path) -> None:
    run = trained / "stage-2"
    for weights, other in (
        ("model/model.safetensors", "model/config.json"),
        ("adapter/adapter_model.safetensors", "adapter/adapter_config.json"),
    ):
        assert (run / weights).stat().st_mode == (run / other).stat().st_mode


def train_with_saved_module(folder: Path) -> None:
    lora = {"rank": 4, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}
    for stage in (2, 3):
        config = settings(
            folder,
            lora=lora,
            deepspeed={
                "zero_stage": stage,
                "precision": "float32",
                "override": NO_PERSISTENCE if stage == 3 else {},
            },
        )
        train_interrupted_and_uninterrupted(config, folder, f"{stage}")


@pytest.fixture(scope="module")
def trained_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modules-to-save")
    settings(folder)
    run_in_world(1, train_with_saved_module, folder)
    return folder


@pytest.mark.parametrize("stage", [2, 3])
def test_tied_embeddings_are_trained_saved_and_resumed(stage: int, trained_module: Path) -> None:
    """peft loads the adapter into the base model: both names of the tied matrix change."""
    ids = torch.tensor([[5, 9, 33, 70, 12]])
    base = AutoModelForCausalLM.from_pretrained(trained_module / "model")
    before = load_file(trained_module / "model" / "model.safetensors")
    logits = {}
    for kind in ("whole", "cut"):
        run = trained_module / f"{kind}-{stage}"
        after = load_file(run / "model" / "model.safetensors")
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == {n for n in before if "q_proj" in n or "embed_tokens" in n}
        norm = math.sqrt(sum(float((after[n] - before[n]).double().square().sum()) for n in moved))
        result = json.loads((run / "train.json").read_text())["result"]
        assert result["distance"] == pytest.approx(norm, rel=1e-4)
        with torch.no_grad():
            logits[kind] = AutoModelForCausalLM.from_pretrained(run / "model")(ids).logits
    assert torch.equal(logits["whole"], logits["cut"])
    with torch.no_grad():
        adapted = peft.PeftModel.from_pretrained(
            base, str(trained_module / f"whole-{stage}" / "adapter")
        )(ids).logits
    torch.testing.assert_close(logits["whole"], adapted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere", "the model has no module of this name"),
        ("mlp", "it contains layers that lora.target_modules selects"),
        ("q_proj", "it contains layers that lora.target_modules selects"),
    ],
)
def test_modules_that_cannot_be_trained_are_rejected(name: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"lora.modules_to_save .*{name} cannot .*{reason}"):
        add_lora(tiny_model(), LoraConfig(modules_to_save=[name]))


@pytest.mark.parametrize(
    ("target", "reason"),
    [("nowhere", "nowhere"), ("lm_head", "the output head"), ("embed_tokens", "the embeddings")],
)
def test_targets_that_cannot_be_adapted_are_rejected(target: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"lora.target_modules {target} cannot .*{reason}"):
        add_lora(tiny_model(tied=False), LoraConfig(target_modules=[target]))


def test_l2_sp_with_lora_is_rejected() -> None:
    settings = {
        "model": {"path": "m"},
        "data": {"path": "d"},
        "lora": {},
        "optimizer": {"l2_sp": 1.0},
    }
    with pytest.raises(ValueError, match="lora keeps the pre-trained weights fixed"):
        TrainConfig.model_validate(settings)


def test_ranks_do_not_log_the_advice_of_bitsandbytes_at_its_import() -> None:
    code = "import logging; logging.basicConfig(level=logging.INFO); import trainers.sft"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "bitsandbytes" not in done.stderr
