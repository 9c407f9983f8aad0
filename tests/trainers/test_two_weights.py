"""A common factor of prompt and completion weight: when it affects training, and when not.

AdamW divides the mean of gradients by the root of the mean of their squares. A factor of the loss
is a factor of both, so that it cancels up to epsilon, as long as nothing else looks at the size of
gradients, as clipping does. Kingma and Ba 2015 (arXiv 1412.6980), section 2.1.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.trainers.tiny_runs import settings, train_until
from tests.worlds import run_in_world
from trainers.data.roles import EncodedExample, Role
from trainers.loss_config import LossConfig, RoleWeights
from trainers.token_weights import batch_weights

STEPS = 4
# Of the largest change that training makes to a parameter; 2e-6 (`completion`) and 2e-5 (`nonzero`)
# were seen. A factor of 2 is exact in floating point, so that epsilon alone is left.
TOLERANCE = 1e-4
# The smallest such change if the size of gradients matters.
CLEAR = 1e-2
HALF, WHOLE = (0.1, 0.5), (0.2, 1.0)
ADAM = {"epsilon": 1e-12, "weight_decay": 0.0, "max_grad_norm": 0.0, "learning_rate": 1e-3}
# Plain gradient descent: without memory, and with an epsilon that hides the gradient's size, AdamW
# divides by epsilon alone.
DESCENT = {"beta1": 0.0, "beta2": 0.0, "epsilon": 1e6, "learning_rate": 1e5}


def run(
    folder: Path, pair: tuple[float, float], normalization: str, optimizer: dict[str, Any]
) -> dict[str, Any]:
    prompt, completion = pair
    return settings(
        folder,
        loss={
            "prompt_loss_weight": prompt,
            "role_weights": {"completion": completion},
            "normalization": normalization,
        },
        optimizer={**ADAM, **optimizer},
        schedule={"steps": STEPS, "kind": "constant", "warmup_ratio": 0.0},
        deepspeed={"zero_stage": 0, "precision": "float32"},
        checkpoint={},
    )


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "adam": ("completion", {}),
    "nonzero": ("nonzero", {}),
    "epsilon": ("completion", {"epsilon": 1e-2}),
    # Between the norms of the two: 4.3 to 5.6 with the larger weights, 2.2 to 2.8 with the others.
    "clipping": ("completion", {"max_grad_norm": 4.4}),
    "descent": ("completion", DESCENT),
    "weights": ("weights", {"epsilon": 1e-2}),
}


def train_all(folder: Path) -> None:
    for name, (normalization, optimizer) in CASES.items():
        for pair in (HALF, WHOLE):
            train_until(run(folder, pair, normalization, optimizer), folder / f"{name}-{pair[1]}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two-weights")
    run_in_world(1, train_all, folder)
    return folder


def changes(trained: Path, name: str, pair: tuple[float, float]) -> torch.Tensor:
    """Return the change of every weight of the model, float64."""
    before = load_file(trained / "model" / "model.safetensors")
    after = load_file(trained / f"{name}-{pair[1]}" / "model" / "model.safetensors")
    return torch.cat([(after[key].double() - before[key].double()).flatten() for key in before])


def largest_difference(trained: Path, name: str) -> float:
    """Return the largest difference between both pairs, relative to the largest change."""
    half, whole = (changes(trained, name, pair) for pair in (HALF, WHOLE))
    assert float(whole.abs().max()) > 1e-4, "training changed something"
    return float((half - whole).abs().max() / whole.abs().max())


def test_doubling_both_weights_trains_the_same_model_under_adamw(trained: Path) -> None:
    assert largest_difference(trained, "adam") < TOLERANCE
    assert largest_difference(trained, "nonzero") < TOLERANCE


@pytest.mark.parametrize("name", ["epsilon", "clipping", "descent"])
def test_a_large_epsilon_clipping_and_gradient_descent_depend_on_the_factor(
    name: str, trained: Path
) -> None:
    # The comparison can fail: these differ by at least 100 times the tolerance.
    assert largest_difference(trained, name) > CLEAR


def test_gradient_descent_moves_twice_as_far(trained: Path) -> None:
    half, whole = (changes(trained, "descent", pair) for pair in (HALF, WHOLE))
    assert float(half.norm() / whole.norm()) == pytest.approx(0.5, abs=0.05)


def test_the_factor_cancels_with_normalization_weights_for_every_optimizer(
    trained: Path,
) -> None:
    # So the first test cannot fail under `weights`, even with a large epsilon.
    assert largest_difference(trained, "weights") == 0.0


@pytest.mark.parametrize("completion", [0.0, 0.25, 1.0])
def test_the_denominator_of_completion_does_not_depend_on_the_completion_weight(
    completion: float,
) -> None:
    loss = LossConfig(
        prompt_loss_weight=0.5,
        role_weights=RoleWeights(completion=completion),
        normalization="completion",
    )
    roles = [Role.USER] * 7 + [Role.COMPLETION] * 3
    example = EncodedExample(id="a", input_ids=[0] * 10, roles=[int(role) for role in roles])
    assert batch_weights([example], loss).divisor == 3.0
