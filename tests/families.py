"""Random models of families that differ in what training and scoring have to know about."""

from typing import Any

import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

_SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
_GPT: dict[str, Any] = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 1}


def family(name: str) -> PreTrainedModel:
    """A random model of the family `name`, in evaluation mode."""
    torch.manual_seed(1)
    make: dict[str, Any] = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**_SIZES)),
        # A window shorter than the prompts, so that a shifted window shows.
        "mistral": lambda: MistralForCausalLM(MistralConfig(**_SIZES, sliding_window=5)),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_SIZES, head_dim=8)),
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(**_GPT, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3)
        ),
        "gpt_neo": lambda: GPTNeoForCausalLM(
            GPTNeoConfig(
                **_GPT, hidden_size=32, num_layers=2, num_heads=4, window_size=5,
                attention_types=[[["global", "local"], 1]], initializer_range=0.3,
            )
        ),
        "gemma2": lambda: Gemma2ForCausalLM(
            Gemma2Config(**_SIZES, head_dim=8, sliding_window=5, final_logit_softcapping=3.0)
        ),
        "cohere": lambda: CohereForCausalLM(CohereConfig(**_SIZES, logit_scale=0.25)),
        "granite": lambda: GraniteForCausalLM(GraniteConfig(**_SIZES, logits_scaling=4.0)),
        "mamba": lambda: MambaForCausalLM(
            MambaConfig(
                vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4, pad_token_id=0,
                bos_token_id=1, eos_token_id=1, initializer_range=0.3,
            )
        ),
    }  # fmt: skip
    model: PreTrainedModel = make[name]()
    return model.eval()
