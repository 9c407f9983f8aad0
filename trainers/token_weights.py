"""The loss weight of each token, and the divisor of the weighted sum over a global batch.

A token's weight combines the weight of its role, which the settings give, with the weights that the
data gives to its turn, part or token, and to its example.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.data.roles import COMPLETION_ROLES, PROMPT_ROLES, EncodedExample, Role
from trainers.data.tokenized import EncodedExamples
from trainers.foundation.counts import format_count
from trainers.foundation.errors import InputError, Problem
from trainers.loss_config import LossConfig

_ROLES_OF_TURNS = (Role.SYSTEM, Role.USER, Role.TOOL)


def role_weights(config: LossConfig) -> dict[Role, float]:
    """Return the loss weight of each role: 1 for completion, the PLW for prompt roles.

    `config.role_weights` overrides the weights of single roles. Thinking has the completion's
    weight unless `config.role_weights` sets it.
    """
    completion = config.role_weights.completion
    defaults = {
        Role.PADDING: 0.0,
        **dict.fromkeys(PROMPT_ROLES, config.prompt_loss_weight),
        Role.EXCLUDED: 0.0,
        **dict.fromkeys(COMPLETION_ROLES, 1.0 if completion is None else completion),
    }
    overrides = {Role[name.upper()]: weight for name, weight in config.role_weights}
    return defaults | {role: weight for role, weight in overrides.items() if weight is not None}


def token_weights(example: EncodedExample, config: LossConfig) -> NDArray[np.float64]:
    """Return the loss weight of each token (T,), without the example's sample weight.

    A weight in the data multiplies or replaces that of the token's role, as `config.data_weights`
    says. The first token has no context and is never a target: its weight is 0.
    """
    of_role = role_weights(config)
    roles = np.asarray(example.roles)
    table = np.array([of_role[role] for role in Role])
    weights: NDArray[np.float64] = table[roles]
    if example.weights is not None:
        given = np.asarray(example.weights, dtype=np.float64)
        combined = given * weights if config.data_weights == "multiply" else given
        is_given = ~np.isnan(given) & (roles != Role.EXCLUDED)
        weights[is_given] = combined[is_given]
    weights[0] = 0.0
    return weights


@dataclass(frozen=True)
class BatchWeights:
    """The weights of a global batch, for a loss of sum(weight x token loss) / `divisor`.

    `of_examples` has the weight of each token (T,) for each example, float32, including sample
    weights. `num_weighted` counts the tokens with a weight above 0 by role.
    """

    of_examples: list[NDArray[np.float32]]
    num_weighted: dict[Role, int]
    divisor: float


def batch_weights(examples: Sequence[EncodedExample], config: LossConfig) -> BatchWeights:
    """Return the weights and the divisor of the global batch `examples`.

    Divisors: `weights` is the sum of all weights; `nonzero` the number of tokens with a weight
    above 0; `completion` the number of completion tokens with a weight above 0, or of all if there
    is none; `tokens` the number of all tokens but the first of each example. With `examples`, each
    example's weights are divided by their sum W_i, and the divisor is the sum of the sample weights
    of the examples with W_i above 0. A divisor of 0 becomes 1: the loss of such a batch is an empty
    sum, 0.
    """
    if not examples:
        return BatchWeights([], dict.fromkeys(Role, 0), 1.0)
    weights = [token_weights(example, config) for example in examples]
    sample_weights = [example.sample_weight for example in examples]
    if config.normalization == "examples":
        sums = [float(one.sum()) for one in weights]
        weights = [one / (total or 1.0) for one, total in zip(weights, sums, strict=True)]
    weights = [one * weight for one, weight in zip(weights, sample_weights, strict=True)]
    all_roles = np.concatenate([example.roles for example in examples])
    all_weights = np.concatenate(weights)
    num_weighted = _count_by_role(all_roles[all_weights > 0])
    match config.normalization:
        case "weights":
            divisor = sum(_sum(all_weights[all_roles == role]) for role in Role)
        case "nonzero":
            divisor = sum(num_weighted.values())
        case "completion":
            targets = np.concatenate([example.roles[1:] for example in examples])
            num_weighted_completion = sum(num_weighted[role] for role in COMPLETION_ROLES)
            divisor = num_weighted_completion or int(np.isin(targets, COMPLETION_ROLES).sum())
        case "tokens":
            divisor = len(all_weights) - len(examples)
        case "examples":
            divisor = sum(w for w, total in zip(sample_weights, sums, strict=True) if total > 0)
    float32 = [one.astype(np.float32) for one in weights]
    return BatchWeights(float32, num_weighted, float(divisor) or 1.0)


def _count_by_role(roles: NDArray[np.integer]) -> dict[Role, int]:
    counts = np.bincount(roles, minlength=len(Role))
    return {role: int(counts[role]) for role in Role}


def _sum(weights: NDArray[np.float64]) -> float:
    """Return the sum of the weights, each distinct value times its count: most are equal."""
    values, counts = np.unique(weights, return_counts=True)
    return float(values @ counts)


def check_nonzero_weights(examples: Iterable[EncodedExample], config: LossConfig) -> None:
    """Check that at least one token of the training data has a weight above 0.

    Raises:
        InputError: all tokens have weight 0.
    """
    found: set[int] = set()
    for example in examples:
        if token_weights(example, config).any():
            return
        found.update(example.roles[1:])
    roles = ", ".join(Role(role).name.lower() for role in sorted(found))
    raise InputError(
        Problem(
            message=f"all tokens of the training data have weight 0 (roles: {roles})",
            fix="set loss.prompt_loss_weight or one of loss.role_weights above 0",
        )
    )


def check_data_weights(examples: EncodedExamples, config: LossConfig) -> None:
    """Check that no weight of 1 in the data of a prompt turn has no effect.

    It asks for training on the turn, but a factor of 1 changes nothing.

    Raises:
        InputError: weights multiply, and a turn of the prompt has weight 1.
    """
    if config.data_weights == "replace":
        return
    counts = examples.counts
    problems = [
        _no_effect(
            role.name.lower(),
            ids,
            has_turns=counts.num_tokenised_examples < counts.num_examples,
            has_tokens=role == Role.USER and counts.num_tokenised_examples > 0,
        )
        for role in _ROLES_OF_TURNS
        if (ids := examples.ids_with_weight(role, 1.0))
    ]
    if problems:
        raise InputError(problems)


def _no_effect(role: str, ids: Sequence[str], *, has_turns: bool, has_tokens: bool) -> Problem:
    """Return the problem of weight 1 in chats, tokenised records (whose prompts are user) or both.

    The weights of a tokenised record cannot be removed from single tokens.
    """
    others = f" (also in {format_count(len(ids) - 1, 'more record')})" if len(ids) > 1 else ""
    places, fixes = [], ["set loss.data_weights to replace"]
    if has_turns:
        places.append(f"a {role} turn")
        fixes.append(f"set loss.role_weights.{role} and remove weight 1 from {role} turns")
    if has_tokens:
        places.append("tokens of the prompt")
        fixes.append(
            "list the field of token weights in data.ignore and mark the completion with labels or"
            " a mask, so that prompt tokens have the PLW"
        )
    return Problem(
        message=f"the data gives {' or '.join(places)} weight 1, which changes nothing while"
        f" loss.data_weights is multiply: 1 is a factor of the weight of the role {role}{others}",
        where=ids[0],
        fix=", or ".join(fixes),
    )
