"""The weight of each token, and the divisors of the five normalizations."""

from typing import Any

import numpy as np
import pytest

from trainers.data.roles import EncodedExample, Role
from trainers.foundation.errors import InputError
from trainers.loss_config import LossConfig, NormalizationMode, RoleWeights
from trainers.token_weights import batch_weights, check_nonzero_weights, token_weights

NAN = float("nan")
ROLE_OF = {
    **{"S": Role.SYSTEM, "U": Role.USER, "T": Role.TEMPLATE, "R": Role.TOOL},
    **{"H": Role.THINKING, "C": Role.COMPLETION, "X": Role.EXCLUDED},
}
MIXED = LossConfig(
    prompt_loss_weight=0.25, role_weights=RoleWeights(system=1.0, template=0.0, thinking=0.5)
)


def example(roles: str, weights: list[float] | None = None, **fields: Any) -> EncodedExample:
    """Return an example whose tokens have the given roles; the first token is no target."""
    return EncodedExample(
        id=roles,
        input_ids=[0] * len(roles),
        roles=[int(ROLE_OF[letter]) for letter in roles],
        weights=weights,
        **fields,
    )


def test_each_target_has_the_weight_of_its_role() -> None:
    found = token_weights(example("SSTUHCX"), MIXED)
    assert found.tolist() == [0, 1, 0, 0.25, 0.5, 1, 0]


@pytest.mark.parametrize(
    ("data_weights", "expected"),
    [
        # 0.5 x 0.25, no weight given, 3 x 0.5, 0 x 1, 0.1 x 1; excluded tokens never count.
        ("multiply", [0, 0.125, 0.25, 1.5, 0, 0.1, 0]),
        ("replace", [0, 0.5, 0.25, 3, 0, 0.1, 0]),
    ],
)
def test_a_weight_in_the_data_multiplies_or_replaces_that_of_the_role(
    data_weights: Any, expected: list[float]
) -> None:
    given = [9, 0.5, NAN, 3, 0, 0.1, 7]
    loss = MIXED.model_copy(update={"data_weights": data_weights})
    assert token_weights(example("SUUHCCX", given), loss).tolist() == expected


BATCH = [
    # Weights 0.25 and 1 1 in MIXED.
    example("TUCC"),
    # 0.25, 0, 0.5, and 1 with the factors 2, 0, 3.
    example("TUTHCCC", [NAN, NAN, NAN, NAN, 2, 0, 3], sample_weight=0.5),
]


@pytest.mark.parametrize(
    ("mode", "divisor", "weights"),
    [
        ("weights", 2.25 + 0.5 * 5.75, [[0, 0.25, 1, 1], [0, 0.125, 0, 0.25, 1, 0, 1.5]]),
        ("nonzero", 3 + 4, [[0, 0.25, 1, 1], [0, 0.125, 0, 0.25, 1, 0, 1.5]]),
        ("completion", 2 + 3, [[0, 0.25, 1, 1], [0, 0.125, 0, 0.25, 1, 0, 1.5]]),
        ("tokens", 3 + 6, [[0, 0.25, 1, 1], [0, 0.125, 0, 0.25, 1, 0, 1.5]]),
        (
            "examples",
            1 + 0.5,
            [
                [0, 0.25 / 2.25, 1 / 2.25, 1 / 2.25],
                [0, 0.125 / 5.75, 0, 0.25 / 5.75, 1 / 5.75, 0, 1.5 / 5.75],
            ],
        ),
    ],
)
def test_weights_and_divisor_of_a_global_batch(
    mode: NormalizationMode, divisor: float, weights: list[list[float]]
) -> None:
    found = batch_weights(BATCH, MIXED.model_copy(update={"normalization": mode}))
    assert found.divisor == divisor
    for one, expected in zip(found.of_examples, weights, strict=True):
        assert one.dtype == np.float32
        assert one.tolist() == pytest.approx(expected, rel=1e-7)
    assert found.num_weighted == {
        **dict.fromkeys(Role, 0),
        **{Role.USER: 2, Role.THINKING: 1, Role.COMPLETION: 4},
    }


def test_examples_without_weighted_tokens_are_not_counted_by_examples() -> None:
    loss = LossConfig(normalization="examples")
    found = batch_weights([example("UC"), example("UUX"), example("UCC")], loss)
    assert found.divisor == 2
    assert [one.tolist() for one in found.of_examples] == [[0, 1], [0, 0, 0], [0, 0.5, 0.5]]


def test_completion_counts_all_completion_tokens_if_none_has_a_weight() -> None:
    roles = RoleWeights(completion=0.0)
    loss = LossConfig(prompt_loss_weight=1.0, role_weights=roles, normalization="completion")
    assert batch_weights([example("CUCHC")], loss).divisor == 3


def test_the_divisor_of_a_batch_without_weighted_tokens_is_one() -> None:
    only_system = LossConfig(role_weights=RoleWeights(system=1.0, completion=0.0))
    assert batch_weights([example("UUCC")], only_system).divisor == 1.0


def test_a_weight_with_rounding_error_is_multiplied_by_its_count() -> None:
    """1,000 x 0.1, not the sum of 1,000 terms, so that results of earlier releases stay the same"""
    loss = LossConfig(prompt_loss_weight=0.1)
    assert batch_weights([example("U" * 1001)], loss).divisor == 1000 * 0.1


def test_data_without_weighted_tokens_is_rejected() -> None:
    only_system = LossConfig(role_weights=RoleWeights(system=1.0, completion=0.0))
    with pytest.raises(InputError) as caught:
        check_nonzero_weights([example("SUUC"), example("UCX")], only_system)
    assert str(caught.value) == (
        "all tokens of the training data have weight 0 (roles: user, completion, excluded); set"
        " loss.prompt_loss_weight or one of loss.role_weights above 0"
    )
    check_nonzero_weights([example("UC"), example("USC")], only_system)
