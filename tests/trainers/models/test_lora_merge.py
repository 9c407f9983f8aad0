"""Merged LoRA factors give the logits of the model with factors, for each kind of layer."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from tests.trainers.gradients import tiny_model
from trainers.config import LoraConfig
from trainers.models.lora import add_lora, merge_lora

IDS = torch.tensor([[5, 9, 33, 60, 12]])


def gpt2() -> GPT2LMHeadModel:
    """Return a model of Conv1D layers; `attn.c_proj` is square, `mlp.c_proj` is not."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=97))


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("make", [gpt2, tiny_model])
def test_merged_weights_compute_the_same_logits(make: type, rslora: bool) -> None:
    model: PreTrainedModel = make().eval()
    config = LoraConfig(rank=4, alpha=8.0, rslora=rslora)
    with torch.no_grad():
        untuned = model(IDS).logits
        add_lora(model, config)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
        adapted = model(IDS).logits
        weights, squared = merge_lora(model.state_dict(), model)
        merged = make().eval()
        _, unexpected = merged.load_state_dict(weights, strict=False)
    assert set(unexpected) == set()
    torch.testing.assert_close(merged(IDS).logits, adapted, rtol=1e-4, atol=1e-4)
    assert (adapted - untuned).abs().max() > 0.1
    assert squared


def test_rslora_scales_by_the_root_of_the_rank() -> None:
    scalings = {}
    for rslora in (False, True):
        model = tiny_model()
        add_lora(model, LoraConfig(rank=4, alpha=8.0, rslora=rslora))
        layer = model.get_submodule("model.layers.0.self_attn.q_proj")
        scalings[rslora] = layer.scaling["default"]
    assert scalings == {False: 2.0, True: 4.0}
