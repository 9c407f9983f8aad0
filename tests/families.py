"""Random models of architectures that differ in attention windows, caches or logit scaling."""

from typing import Any

import torch
import transformers as T
from transformers import PreTrainedModel

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
    """Return a random model of the family `name`, in evaluation mode."""
    torch.manual_seed(1)
    make: dict[str, Any] = {
        "llama": lambda: T.LlamaForCausalLM(T.LlamaConfig(**_SIZES)),
        # A window shorter than the prompts, so that an offset by one changes the output.
        "mistral": lambda: T.MistralForCausalLM(T.MistralConfig(**_SIZES, sliding_window=5)),
        "qwen3": lambda: T.Qwen3ForCausalLM(T.Qwen3Config(**_SIZES, head_dim=8)),
        "gpt2": lambda: T.GPT2LMHeadModel(
            T.GPT2Config(**_GPT, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3)
        ),
        "gpt_neo": lambda: T.GPTNeoForCausalLM(
            T.GPTNeoConfig(
                **_GPT, hidden_size=32, num_layers=2, num_heads=4, window_size=5,
                attention_types=[[["global", "local"], 1]], initializer_range=0.3,
            )
        ),
        "gemma2": lambda: T.Gemma2ForCausalLM(
            T.Gemma2Config(**_SIZES, head_dim=8, sliding_window=5, final_logit_softcapping=3.0)
        ),
        "cohere": lambda: T.CohereForCausalLM(T.CohereConfig(**_SIZES, logit_scale=0.25)),
        "granite": lambda: T.GraniteForCausalLM(T.GraniteConfig(**_SIZES, logits_scaling=4.0)),
        "mamba": lambda: T.MambaForCausalLM(
            T.MambaConfig(
                vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4, pad_token_id=0,
                bos_token_id=1, eos_token_id=1, initializer_range=0.3,
            )
        ),
        "gemma3": lambda: T.Gemma3ForCausalLM(
            T.Gemma3TextConfig(
                **_SIZES, head_dim=8, sliding_window=5, final_logit_softcapping=3.0
            )
        ),
        # A model with vision, whose soft cap is in text_config.
        "gemma4": lambda: T.AutoModelForCausalLM.from_config(
            T.Gemma4Config(
                text_config=T.Gemma4TextConfig(
                    # Larger weights amplify float32's rounding.
                    **(_SIZES | {"initializer_range": 0.02}), head_dim=8, sliding_window=5,
                    final_logit_softcapping=3.0,
                    layer_types=["sliding_attention", "full_attention"],
                    vocab_size_per_layer_input=64, hidden_size_per_layer_input=4,
                ).to_dict(),
                vision_config=None,
            )
        ),
        "falcon_h1": lambda: T.FalconH1ForCausalLM(
            T.FalconH1Config(
                **_SIZES, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8,
                mamba_n_groups=1, mamba_chunk_size=8, lm_head_multiplier=0.25,
            )
        ),
        "qwen3_5": lambda: T.Qwen3_5ForCausalLM(
            T.Qwen3_5TextConfig(
                **_SIZES, head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4,
                linear_key_head_dim=8, linear_value_head_dim=8,
                layer_types=["linear_attention", "full_attention"],
            )
        ),
        "gpt_oss": lambda: T.GptOssForCausalLM(
            T.GptOssConfig(
                **_SIZES, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=5
            )
        ),
    }  # fmt: skip
    model: PreTrainedModel = make[name]()
    return model.eval()
