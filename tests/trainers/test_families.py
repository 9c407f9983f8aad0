"""Loss and gradients of model families against float64 autograd of the model's own logits."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from tests.families import family
from tests.tiny_model import tiny_tokenizer
from trainers.config import ModelConfig
from trainers.foundation.errors import InputError
from trainers.loss import WeightedPromptLM
from trainers.models.loading import load_model, logit_map
from trainers.models.packed_attention import enable_packed_attention

LENGTHS = (9, 4, 13)
NO_SDPA = ("gemma2", "gpt_oss", "gpt_neo")
PACKED = ("llama", "qwen3", "gpt2", "cohere", "granite", "gemma3", "gemma4")
UNPACKED = {
    "gemma2": "attention with a soft cap cannot be packed",
    "gpt_oss": "attention with sinks cannot be packed",
    "qwen3_5": "it has layers of type linear_attention",
    "falcon_h1": "it has layers of type hybrid",
}


# Of the norm of all gradients. On this Gemma 4, float32 autograd of the model's own logits is off
# by 1.4e-5.
TOLERANCE = 3e-5


def saved(name: str, folder: Path) -> ModelConfig:
    """Save a model in whose layers no weight is zero, and return its settings, without dropout."""
    model = family(name)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return ModelConfig(
        path=str(folder),
        attention="eager" if name in NO_SDPA else "sdpa",
        dropout=0.0 if name in ("gpt2", "gpt_neo") else None,
    )


def sequences() -> tuple[list[Tensor], list[Tensor]]:
    """Return token ids of some sequences, and the weight of each as a target."""
    generator = torch.Generator().manual_seed(3)
    ids = [torch.randint(0, 64, (length,), generator=generator) for length in LENGTHS]
    weights = [torch.rand(length, generator=generator).round(decimals=1) for length in LENGTHS]
    return ids, weights


def expected_gradients(config: ModelConfig) -> tuple[float, dict[str, Tensor]]:
    """Return loss and gradients of plain cross entropy of the model's logits, in float64."""
    model = AutoModelForCausalLM.from_pretrained(
        config.path, dtype=torch.float64, attn_implementation="eager"
    )
    if hasattr(model.config.get_text_config(), "num_local_experts"):
        model.set_experts_implementation("eager")  # torch's grouped product has no float64.
    total = torch.zeros((), dtype=torch.float64)
    for ids, weights in zip(*sequences(), strict=True):
        losses = cross_entropy(model(input_ids=ids[None]).logits[0, :-1], ids[1:], reduction="none")
        total = total + (losses * weights[1:]).sum()
    total.backward()
    return total.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def flattened(rows: list[Tensor], columns: int) -> Tensor:
    """Return padded rows, one after the other."""
    return torch.cat([torch.nn.functional.pad(row, (0, columns - len(row))) for row in rows])


def our_gradients(config: ModelConfig, *, packing: bool) -> tuple[float, dict[str, Tensor]]:
    model = load_model(config, torch.float32)
    if packing:
        enable_packed_attention(model)
    wrapped = WeightedPromptLM(model, logit_map=logit_map(config)).train()
    ids, weights = sequences()
    targets = [ids_T.roll(-1) for ids_T in ids]
    weights = [torch.cat([weights_T[1:], torch.zeros(1)]) for weights_T in weights]
    if packing:
        row, target, weight = (torch.cat(parts) for parts in (ids, targets, weights))
        shape, lengths = (1, -1), LENGTHS
    else:
        row, target, weight = (flattened(parts, max(LENGTHS)) for parts in (ids, targets, weights))
        shape, lengths = (len(LENGTHS), -1), None
    selected = weight.nonzero().squeeze(1)
    total, _ = wrapped(row.view(shape), selected, target[selected], weight[selected], lengths)
    total.backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return total.item(), found


def assert_equal(ours: tuple[float, dict[str, Tensor]], config: ModelConfig) -> None:
    loss, gradients = expected_gradients(config)
    assert ours[0] == pytest.approx(loss, rel=1e-5)
    assert ours[1].keys() == gradients.keys()
    norm = sum(float(g.square().sum()) for g in gradients.values()) ** 0.5
    for name, gradient in gradients.items():
        assert float((ours[1][name].double() - gradient).norm()) < TOLERANCE * norm, name


@pytest.mark.parametrize("name", [*PACKED, *UNPACKED, "gpt_neo", "mistral"])
def test_loss_and_gradients_equal_those_of_the_models_logits(name: str, tmp_path: Path) -> None:
    config = saved(name, tmp_path)
    assert_equal(our_gradients(config, packing=False), config)


@pytest.mark.parametrize("name", PACKED)
def test_packed_loss_and_gradients_equal_those_of_the_models_logits(
    name: str, tmp_path: Path
) -> None:
    config = saved(name, tmp_path)
    assert_equal(our_gradients(config, packing=True), config)


@pytest.mark.parametrize("name", UNPACKED)
def test_a_family_that_cannot_be_packed_is_rejected_with_the_reason(name: str) -> None:
    with pytest.raises(InputError, match=f"batch.packing does not support .*{UNPACKED[name]}"):
        enable_packed_attention(family(name))
