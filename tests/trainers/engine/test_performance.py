"""FLOP of a step against torch's counter of executed operations; MFU, and peaks by device name."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    Gemma4ForCausalLM,
    Gemma4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from trainers.engine.performance import (
    ModelFlops,
    measure_performance,
    model_flops,
    peak_flops,
    peak_memory_bytes,
    reset_peak_memory,
)
from trainers.engine.ranks import Ranks

LENGTH = 48
CPU = Ranks(0, 1, torch.device("cpu"))


def tiny_llama() -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=200,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            attn_implementation="eager",
        )
    )


def executed_flops(model: LlamaForCausalLM) -> int:
    """Return the FLOP of matrix products in a forward and a backward pass over `LENGTH` tokens."""
    embedded = model.get_input_embeddings()(torch.arange(LENGTH)[None]).detach().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        model(inputs_embeds=embedded, use_cache=False).logits.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("is_lora", [False, True])
def test_flops_are_those_that_torch_executes_but_for_the_pairs_that_a_causal_mask_hides(
    is_lora: bool,
) -> None:
    model = tiny_llama()
    flops = model_flops(model, is_lora=is_lora)
    assert flops is not None
    if is_lora:
        model.requires_grad_(False)
    # Eager attention computes the products of all pairs: 3 layers of 4 heads of size 16.
    hidden_pairs = LENGTH * (LENGTH - 1) // 2
    expected = executed_flops(model) - 12 * 3 * 64 * hidden_pairs
    # torch also counts the product of positions and frequencies in the rotary embedding.
    assert flops.of_step([LENGTH], LENGTH) == pytest.approx(expected, rel=1e-3)


def test_flops_of_a_step_by_hand() -> None:
    flops = ModelFlops(matmul_parameters=10, head_parameters=7, attention_width={None: 2, 3: 4})
    # 6 x 10 x 6 tokens + 6 x 7 x 2 targets; pairs of lengths 2 and 4: 3 + 10, in windows 3 + 9.
    assert flops.of_step([2, 4], 2) == 360 + 84 + 12 * (2 * 13 + 4 * 12)
    assert replace(flops, products=2).of_step([2, 4], 2) == 240 + 56 + 12 * (2 * 13 + 4 * 12)


def test_a_mixture_of_experts_has_no_known_flops() -> None:
    config = MixtralConfig(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=2,
    )  # fmt: skip
    assert model_flops(MixtralForCausalLM(config)) is None


def test_the_heads_of_full_attention_may_be_larger_than_those_of_sliding_windows() -> None:
    config = Gemma4TextConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_global_key_value_heads=1,
        attention_k_eq_v=True, head_dim=8, global_head_dim=16, sliding_window=5,
        layer_types=["sliding_attention", "full_attention"],
        hidden_size_per_layer_input=4, vocab_size_per_layer_input=64,
    )  # fmt: skip
    flops = model_flops(Gemma4ForCausalLM(config))
    assert flops is not None
    assert flops.attention_width == {5: 4 * 8, None: 4 * 16}


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
    ],
)
def test_peaks_of_devices_in_bfloat16(name: str, teraflops: int) -> None:
    assert peak_flops(name, torch.bfloat16) == teraflops * 1e12
    assert peak_flops(name, torch.float32) is None


def test_mfu_is_the_share_of_all_gpus_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    flops = ModelFlops(matmul_parameters=10**9, head_parameters=0, attention_width={})

    def measure(ranks: Ranks) -> float | None:
        return measure_performance(
            flops, ranks, torch.bfloat16, lengths=[300, 700], num_logits=1, seconds=0.5
        ).mfu

    assert measure(CPU) is None
    monkeypatch.setattr(Ranks, "device_name", "NVIDIA A100-SXM4-40GB")
    # 6e12 FLOP in half a second, of 312e12 per second.
    assert measure(CPU) == pytest.approx(12 / 312)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")
def test_peak_memory_counts_from_the_reset() -> None:
    held = torch.ones(2**26)  # 256 MiB
    before = peak_memory_bytes(CPU.device)
    del held
    reset_peak_memory(CPU.device)
    after = peak_memory_bytes(CPU.device)
    assert before is not None
    assert after is not None
    assert before - after > 200 * 2**20
