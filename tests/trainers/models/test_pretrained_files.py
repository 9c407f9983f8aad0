"""Slices of pre-trained weights are read from files only if they hold the model's values."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedModel

from tests.families import family
from tests.tiny_model import save_tiny_model, tiny_tokenizer
from trainers.config import ModelConfig
from trainers.models.loading import load_model
from trainers.models.pretrained_files import PretrainedFiles, open_pretrained_files


def opened(folder: Path, model: PreTrainedModel) -> PretrainedFiles | None:
    config = ModelConfig(path=str(folder))
    parameters = dict(model.named_parameters())
    return open_pretrained_files(config, model.base_model_prefix, parameters, 0)


def test_slices_are_those_of_the_flattened_weights(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    model = load_model(ModelConfig(path=str(folder)), torch.bfloat16)
    files = opened(folder, model)
    assert files is not None
    saved = load_file(folder / "model.safetensors")
    for name, weight in saved.items():
        flat = weight.flatten()
        for start, size in ((0, 1), (5, 70), (31, 33), (flat.numel() - 3, 9), (flat.numel(), 4)):
            assert torch.equal(files.read(name, start, size), flat[start : start + size]), name


def test_names_without_the_prefix_of_the_decoder_are_found(tmp_path: Path) -> None:
    """The hub's GPT-2 has `wte.weight` for `transformer.wte.weight`."""
    model = family("gpt2")
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    short = {name.removeprefix("transformer."): tensor for name, tensor in saved.items()}
    save_file(short, tmp_path / "model.safetensors", metadata={"format": "pt"})
    files = opened(tmp_path, model)
    assert files is not None
    wanted = model.transformer.h[1].ln_1.weight
    assert torch.equal(files.read("transformer.h.1.ln_1.weight", 0, 32), wanted)


def test_weights_that_transformers_fuses_are_not_read_from_files(tmp_path: Path) -> None:
    config = MixtralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, num_local_experts=2,
    )  # fmt: skip
    model = MixtralForCausalLM(config)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert any("experts.1.w1" in name for name in names)
    assert opened(tmp_path, model) is None


def test_transposed_weights_are_not_read_from_files(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    model = load_model(ModelConfig(path=str(folder)), torch.float32)
    saved = load_file(folder / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    saved[name] = saved[name].T.contiguous()
    save_file(saved, folder / "model.safetensors", metadata={"format": "pt"})
    assert opened(folder, model) is None
