"""The chunked loss against torch's own cross-entropy in float64."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from trainers import loss
from trainers.loss import chunked_cross_entropy

POSITIONS, HIDDEN, VOCABULARY = 23, 8, 31


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("has_bias", [False, True])
def test_equals_torch_cross_entropy_and_its_gradients(
    label_smoothing: float, has_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Five positions per chunk, so that the last chunk is incomplete.
    monkeypatch.setattr(loss, "CHUNK_BYTES", 5 * VOCABULARY * 8)
    torch.manual_seed(0)
    hidden = torch.randn(POSITIONS, HIDDEN, dtype=torch.float64, requires_grad=True)
    head = torch.randn(VOCABULARY, HIDDEN, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(VOCABULARY, dtype=torch.float64, requires_grad=True) if has_bias else None
    targets = torch.randint(0, VOCABULARY, (POSITIONS,))
    weights = torch.rand(POSITIONS, dtype=torch.float64)
    inputs = [tensor for tensor in (hidden, head, bias) if tensor is not None]

    total, losses = chunked_cross_entropy(hidden, head, bias, targets, weights, label_smoothing)
    gradients = torch.autograd.grad(3 * total, inputs)

    logits = torch.nn.functional.linear(hidden, head, bias)
    smoothed = cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)
    expected = torch.autograd.grad(3 * (smoothed * weights).sum(), inputs)
    torch.testing.assert_close(total, (smoothed * weights).sum())
    torch.testing.assert_close(losses, cross_entropy(logits, targets, reduction="none"))
    for gradient, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, wanted)


def test_without_positions_loss_and_gradients_are_zero() -> None:
    hidden = torch.randn(0, HIDDEN, requires_grad=True)
    head = torch.randn(VOCABULARY, HIDDEN, requires_grad=True)
    none = torch.empty(0, dtype=torch.long)
    total, losses = chunked_cross_entropy(hidden, head, None, none, torch.empty(0))
    total.backward()
    assert total.item() == 0
    assert losses.shape == (0,)
    assert head.grad is not None
    assert head.grad.abs().max() == 0


def test_scale_of_a_bfloat16_gradient_is_exact() -> None:
    """The scale is 1 / divisor. 1.4101 in bfloat16 is 1.4063: the gradient would be too small."""
    torch.manual_seed(0)
    head = torch.randn(VOCABULARY, 64, dtype=torch.bfloat16)
    hidden = torch.randn(200, 64, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.randint(0, VOCABULARY, (200,))
    total, _ = chunked_cross_entropy(hidden, head, None, targets, torch.ones(200))
    [plain] = torch.autograd.grad(total, hidden)
    total, _ = chunked_cross_entropy(hidden, head, None, targets, torch.ones(200))
    [scaled] = torch.autograd.grad(total * 1.4101, hidden)
    plain, scaled = plain.double(), scaled.double()
    assert float((scaled * plain).sum() / plain.square().sum()) == pytest.approx(1.4101, abs=5e-4)
