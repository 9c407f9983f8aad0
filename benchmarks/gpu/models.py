"""Shapes of models, with random weights, and examples of random tokens."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from trainers.data.roles import EncodedExample, Role

Completions = Literal["short", "long"]

# The shapes of SmolLM2-135M, Llama 3.2 1B, and 16 of the 32 layers of Llama 2 7B.
SHAPES: dict[str, dict[str, Any]] = {
    "135M": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "1B": {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
    "7B, 16 layers": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
    # For the sections that compare bits or gradients.
    "test": {
        "vocab_size": 512,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    # For every section on a CPU.
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
    },
}


def random_model(
    shape: str, dtype: torch.dtype, device: torch.device, *, initializer_range: float = 0.02
) -> PreTrainedModel:
    """Return a model of a shape in `SHAPES`, created on `device`."""
    torch.manual_seed(0)
    loader: Any = AutoModelForCausalLM
    config = LlamaConfig(
        **SHAPES[shape],
        max_position_embeddings=4096,
        initializer_range=initializer_range,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    with device:
        model: PreTrainedModel = loader.from_config(config, dtype=dtype, attn_implementation="sdpa")
    return model


def save_random_model(folder: Path, shape: str, device: torch.device) -> Path:
    """Write a random bfloat16 model and a tokenizer of bytes to `folder`."""
    random_model(shape, torch.bfloat16, device, initializer_range=0.05).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each byte; 0 is padding, 1 the end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<eos>": 1, **{c: i + 2 for i, c in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Median tokens of prompts and completions; single lengths vary by a factor of two or so."""

    prompt: int
    completion: int
    longest: int = 1024


LENGTHS: dict[Completions, Lengths] = {
    "short": Lengths(prompt=350, completion=30),
    "long": Lengths(prompt=60, completion=300),
}
TINY_LENGTHS: dict[Completions, Lengths] = {
    "short": Lengths(prompt=20, completion=4, longest=64),
    "long": Lengths(prompt=6, completion=20, longest=64),
}


def random_examples(count: int, lengths: Lengths, vocabulary: int) -> list[EncodedExample]:
    """Return `count` examples of random tokens, the same for the same arguments."""
    generator = random.Random(0)

    def draw(typical: int) -> int:
        # Real lengths are about log-normal.
        return max(2, min(lengths.longest // 2, round(typical * generator.lognormvariate(0, 0.6))))

    examples = []
    for index in range(count):
        prompt, completion = draw(lengths.prompt), draw(lengths.completion)
        ids = [generator.randrange(2, vocabulary) for _ in range(prompt + completion)]
        roles = [int(Role.USER)] * prompt + [int(Role.COMPLETION)] * completion
        examples.append(EncodedExample(id=str(index), input_ids=ids, roles=roles))
    return examples
