"""QLoRA: gradients, export and resumed runs with frozen weights in 4 bits."""

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch.func import functional_call
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import settings, train_interrupted_and_uninterrupted
from tests.worlds import run_in_world
from trainers.config import LoraConfig, ModelConfig
from trainers.foundation import extras
from trainers.foundation.errors import InputError
from trainers.models.loading import load_model
from trainers.models.lora import add_lora
from trainers.models.quantization import full_weights

LORA = {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj"], "quantization": "nf4"}
IDS = torch.tensor([[5, 9, 33, 70, 12]])
RUNS = [(1, "bfloat16"), (2, "float32")]
# The largest gap of the NF4 levels is 0.304 (arXiv 2305.14314, appendix E).
LARGEST_ERROR = 0.304 / 2


def save_model(folder: Path) -> Path:
    # bitsandbytes 0.50 needs rows of at least one block, 64 weights, on CPUs with AVX512.
    return save_tiny_model(folder, hidden_size=64)


def train_quantized(folder: Path) -> None:
    for stage, precision in RUNS:
        config = settings(
            folder, lora=LORA, deepspeed={"zero_stage": stage, "precision": precision}
        )
        train_interrupted_and_uninterrupted(config, folder, precision)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qlora")
    settings(folder)
    save_model(folder / "model")
    run_in_world(1, train_quantized, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_resumed_run_gives_the_same_bits(precision: str, trained: Path) -> None:
    whole, cut = (
        load_file(trained / f"{kind}-{precision}" / "model" / "model.safetensors")
        for kind in ("whole", "cut")
    )
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.mark.slow
def test_exported_weights_have_16_levels_in_each_block(trained: Path) -> None:
    before = load_file(trained / "model" / "model.safetensors")
    after = load_file(trained / "whole-float32" / "model" / "model.safetensors")
    assert after.keys() == before.keys()
    name = "model.layers.1.mlp.up_proj.weight"
    blocks, originals = (weights[name].reshape(-1, 64) for weights in (after, before))
    assert max(len(block.unique()) for block in blocks) <= 16
    largest = originals.abs().max(dim=1, keepdim=True).values
    # Scales are quantized too, to 8 bits.
    assert ((blocks - originals).abs() <= 1.05 * LARGEST_ERROR * largest).all()
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    config = json.loads((trained / "whole-float32" / "model" / "config.json").read_text())
    assert "quantization_config" not in config


@pytest.mark.slow
def test_exported_model_equals_the_adapter_on_the_quantized_model(trained: Path) -> None:
    run = trained / "whole-float32"
    base = AutoModelForCausalLM.from_pretrained(
        trained / "model",
        dtype=torch.float32,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        ),
    )
    with torch.no_grad():
        # Evaluation mode multiplies in bfloat16 on CPUs with AVX512-BF16.
        untuned = base.train()(IDS).logits
        adapter = peft.PeftModel.from_pretrained(base, str(run / "adapter"))
        adapted = adapter.train()(IDS).logits
        merged = AutoModelForCausalLM.from_pretrained(run / "model")(IDS).logits
    torch.testing.assert_close(merged, adapted, rtol=1e-5, atol=1e-6)
    assert (merged - untuned).abs().max() > 1e-3


@pytest.mark.slow
def test_gradients_equal_those_of_the_full_weights_in_float64(tmp_path: Path) -> None:
    path = save_model(tmp_path)
    model = load_model(ModelConfig(path=str(path)), torch.float32, quantization="nf4")
    add_lora(model, LoraConfig.model_validate(LORA))
    factors = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for factor in factors.values():
        torch.nn.init.normal_(factor, std=0.3)
    model(IDS, labels=IDS).loss.backward()

    wanted = {name: p.detach().double().requires_grad_() for name, p in factors.items()}
    weights = {}
    for name, weight in full_weights(dict(model.named_parameters()), model).items():
        if ".lora_" in name:
            continue
        layer = name.removesuffix(".base_layer.weight")
        weights[name.replace(".base_layer.", ".")] = weight.detach().double()
        if f"{layer}.lora_A.default.weight" in wanted:
            up, down = (wanted[f"{layer}.lora_{side}.default.weight"] for side in "BA")
            weights[f"{layer}.weight"] = weight.detach().double() + 2.0 * up @ down
    plain = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64)
    functional_call(plain, weights, (IDS,), {"labels": IDS}).loss.backward()
    for name, factor in factors.items():
        torch.testing.assert_close(factor.grad.double(), wanted[name].grad, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_an_evaluation_leaves_the_quantized_weights_unchanged(tmp_path: Path) -> None:
    model = load_model(
        ModelConfig(path=str(save_tiny_model(tmp_path))), torch.float32, quantization="nf4"
    )
    before = full_weights(dict(model.named_parameters()), model)
    model.eval()
    with torch.no_grad():
        model(IDS)
    after = full_weights(dict(model.named_parameters()), model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_error_without_bitsandbytes_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_tiny_model(tmp_path)
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'plw-sweep\[qlora\]'"):
        load_model(ModelConfig(path=str(path)), torch.float32, quantization="nf4")
