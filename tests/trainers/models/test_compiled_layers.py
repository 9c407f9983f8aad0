"""Compiled decoder layers give the gradients of uncompiled ones, and runs that resume exactly."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch._dynamo.utils import counters
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import settings, train_interrupted_and_uninterrupted, train_until
from tests.worlds import run_in_world
from trainers.foundation.errors import InputError
from trainers.models.compiled_layers import compile_layers
from trainers.models.packed_attention import enable_packed_attention, hidden_states

# Numbers of sequences and their lengths.
BATCHES = ((2, 13), (1, 7), (3, 21), (2, 40), (1, 33), (5, 8))
# Of dynamo's limit of 8 for one function, after which it would run uncompiled.
MAX_GRAPHS = 6


def gradients(model: PreTrainedModel, ids: Tensor, lengths: list[int] | None) -> dict[str, Tensor]:
    """Return the gradients of a function of the hidden states that depends on all of them."""
    model.zero_grad()
    hidden = hidden_states(model, ids, lengths)
    (hidden * torch.arange(hidden.shape[-1])).sin().mean().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


# Compiling takes minutes on two cores.
@pytest.mark.slow
@pytest.mark.parametrize(
    "layout",
    ["packed", *(pytest.param(one, marks=pytest.mark.full) for one in ("padded", "checkpointed"))],
)
def test_gradients_are_those_of_the_uncompiled_model(layout: str, tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path / "model")
    plain, compiled = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).train() for _ in range(2)
    )
    for model in (plain, compiled):
        if layout == "packed":
            enable_packed_attention(model)
        if layout == "checkpointed":
            model.gradient_checkpointing_enable({"use_reentrant": False})
    torch._dynamo.reset()
    counters.clear()
    compile_layers(compiled)
    assert [name for name, _ in plain.named_parameters()] == [
        name for name, _ in compiled.named_parameters()
    ]
    generator = torch.Generator().manual_seed(0)
    for count, length in BATCHES:
        ids = torch.randint(0, 90, (count, length), generator=generator)
        lengths = [length] * count if layout == "packed" else None
        ids = ids.reshape(1, -1) if layout == "packed" else ids
        wanted, found = (gradients(model, ids, lengths) for model in (plain, compiled))
        assert found.keys() == wanted.keys()
        for name, gradient in wanted.items():
            assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm(), name
    # Neither zero, which would mean that nothing was compiled, nor one for each length.
    assert 0 < counters["stats"]["unique_graphs"] <= MAX_GRAPHS


def train_compiled(folder: Path) -> None:
    for lora in (None, {"rank": 4, "dropout": 0.1}):
        for is_compiled in (True, False):
            model: dict[str, Any] = {"path": str(folder / "model"), "compile_layers": is_compiled}
            config = settings(folder, model=model, lora=lora, log_heldout_every_steps=2)
            name = f"{'lora' if lora else 'full'}-{is_compiled}"
            if is_compiled:
                train_interrupted_and_uninterrupted(config, folder, name)
            else:
                train_until(config, folder / f"whole-{name}")


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_a_compiled_run_resumes_to_the_same_bits(num_ranks: int, tmp_path: Path) -> None:
    settings(tmp_path)
    run_in_world(num_ranks, train_compiled, tmp_path)

    def weights(name: str) -> dict[str, Tensor]:
        return load_file(tmp_path / name / "model" / "model.safetensors")

    for kind in ("full", "lora"):
        whole, cut = weights(f"whole-{kind}-True"), weights(f"cut-{kind}-True")
        assert all(torch.equal(whole[name], cut[name]) for name in whole)
    # Without dropout, it is the same run but for rounding, which six steps of AdamW amplify.
    compiled, plain = weights("whole-full-True"), weights("whole-full-False")
    for name, weight in plain.items():
        assert (compiled[name] - weight).norm() < 0.01 * weight.norm(), name


def test_a_model_without_such_layers_is_rejected(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(save_tiny_model(tmp_path / "model"))
    model.model.layers = torch.nn.ModuleList()
    with pytest.raises(InputError, match=r"compile_layers does not support llama"):
        compile_layers(model)
