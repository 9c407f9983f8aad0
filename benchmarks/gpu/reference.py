"""The gradient of the weighted loss by definition: float64, on the CPU, one example at a time.

Nothing here calls our loss, batching or engine.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainers.data.roles import EncodedExample, Role


def reference_gradient(
    model: PreTrainedModel, examples: Sequence[EncodedExample], prompt_loss_weight: float
) -> dict[str, Tensor]:
    """Return the gradient of sum(w_t l_t) / sum(w_t) of each trained parameter.

    l_t is the next-token loss in nats; w_t is 1 for a token of a completion.

    Args:
        model: on the CPU; its weights become float64.
    """
    model = model.double().eval()
    total = torch.zeros((), dtype=torch.float64)
    divisor = 0.0
    for example in examples:
        ids = torch.tensor(example.input_ids)[None]
        is_completion = torch.tensor(example.roles)[1:] == int(Role.COMPLETION)
        weights = torch.where(is_completion, 1.0, prompt_loss_weight).double()
        log_probabilities = torch.log_softmax(model(input_ids=ids).logits[0, :-1], dim=-1)
        at_targets = log_probabilities.gather(1, ids[0, 1:, None]).squeeze(1)
        total = total - (weights * at_targets).sum()
        divisor += float(weights.sum())
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(total / divisor, list(trained.values()))
    return dict(zip(trained, gradients, strict=True))


def relative_error(computed: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> float:
    """Return |computed - reference| / |reference| over all parameters."""
    if computed.keys() != reference.keys():
        raise ValueError(f"parameters differ: {sorted(computed.keys() ^ reference.keys())[:4]}")
    difference = sum(
        float((computed[name].cpu().double() - value).square().sum())
        for name, value in reference.items()
    )
    size = sum(float(value.square().sum()) for value in reference.values())
    return float((difference / size) ** 0.5)
