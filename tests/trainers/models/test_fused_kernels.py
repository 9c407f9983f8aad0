"""Liger's kernels: when they are applied, and to what. They need a GPU, so none runs here."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.llama import modeling_llama

from tests.tiny_model import save_tiny_model
from trainers.models.fused_kernels import apply_fused_kernels, why_not_fused

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FORWARD = object()


class FakeNorm(torch.nn.Module):
    """Liger's class in place of transformers'."""


def apply_to_llama(
    rope: bool = True,
    cross_entropy: bool = False,
    fused_linear_cross_entropy: bool = True,
    rms_norm: bool = True,
    swiglu: bool = True,
    model: Any = None,
) -> None:
    """What liger-kernel 0.8.5 does for Llama: it changes the module, then the model."""
    if rope:
        modeling_llama.apply_rotary_pos_emb = None
    if rms_norm:
        modeling_llama.LlamaRMSNorm = FakeNorm
        model.model.norm.forward = FORWARD
    if fused_linear_cross_entropy:
        model.forward = None


@pytest.fixture
def liger(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("liger_kernel")
    package.__spec__ = ModuleSpec("liger_kernel", None)
    patches = ModuleType("liger_kernel.transformers.monkey_patch")
    patches.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": apply_to_llama}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "liger_kernel", package)
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", ModuleType("transformers"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers.monkey_patch", patches)


@pytest.mark.usefixtures("liger")
@pytest.mark.parametrize(
    ("setting", "device", "family", "reason"),
    [
        ("off", GPU, "llama", "model.fused_kernels is off"),
        ("auto", CPU, "llama", "they need a GPU"),
        ("auto", GPU, "mamba", "Liger has none for mamba"),
        ("auto", GPU, "llama", None),
    ],
)
def test_kernels_need_the_setting_a_gpu_and_a_supported_family(
    setting: Any, device: torch.device, family: str, reason: str | None
) -> None:
    assert why_not_fused(setting, device, family) == reason


def test_kernels_need_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    assert why_not_fused("auto", GPU, "llama") == "liger-kernel is not installed"


@pytest.mark.usefixtures("liger")
def test_only_this_model_changes_and_its_loss_and_rotary_function_stay(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path / "model")
    model, other = (AutoModelForCausalLM.from_pretrained(path) for _ in range(2))
    before, forward = dict(vars(modeling_llama)), model.forward
    assert apply_fused_kernels(model, "auto", GPU)
    assert model.model.norm.forward is FORWARD
    assert model.forward == forward
    assert other.model.norm.forward is not FORWARD
    assert dict(vars(modeling_llama)) == before


@pytest.mark.usefixtures("liger")
def test_a_model_on_a_cpu_stays_as_it_is(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(save_tiny_model(tmp_path / "model"))
    forward = model.model.norm.forward
    assert not apply_fused_kernels(model, "auto", CPU)
    assert model.model.norm.forward == forward
