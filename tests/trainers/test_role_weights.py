"""Each role has its own loss weight, and what is divided by follows from it."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from orchestrator.plan.planner import trial_config
from orchestrator.spec.sweep_spec import load_spec
from tests.trainers.gradients import tiny_model
from tests.worlds import run_in_world
from trainers.config import (
    BatchConfig,
    DeepSpeedConfig,
    LossConfig,
    NormalizationMode,
    OptimizerConfig,
    RoleWeights,
)
from trainers.data.roles import Encoded, Role
from trainers.engine.ranks import Ranks
from trainers.engine.zero import ZeroEngine
from trainers.foundation.errors import InputError
from trainers.loss import WeightedPromptLM, check_counted, denominator, role_weights, token_weights
from trainers.step import accumulate_gradient

# Targets by role: 1 system, 2 user, 4 template, 8 completion.
COUNTS = {Role.PADDING: 99, Role.SYSTEM: 1, Role.USER: 2, Role.TEMPLATE: 4, Role.COMPLETION: 8}

MIXED = LossConfig(
    prompt_loss_weight=0.25, role_weights=RoleWeights(system=1.0, template=0.0, completion=0.5)
)


def test_roles_without_a_weight_of_their_own_keep_the_usual_one() -> None:
    assert role_weights(MIXED) == {
        Role.PADDING: 0.0,
        Role.SYSTEM: 1.0,
        Role.USER: 0.25,
        Role.TEMPLATE: 0.0,
        Role.COMPLETION: 0.5,
    }


def test_a_weight_of_zero_is_not_taken_for_none() -> None:
    loss = LossConfig(prompt_loss_weight=0.5, role_weights=RoleWeights(user=0.0))
    assert role_weights(loss)[Role.USER] == 0.0


def test_each_target_has_the_weight_of_its_role() -> None:
    roles = torch.tensor([[Role.SYSTEM, Role.TEMPLATE, Role.USER, Role.COMPLETION, Role.PADDING]])
    assert token_weights(roles, MIXED).tolist() == [[1.0, 0.0, 0.25, 0.5, 0.0]]


@pytest.mark.parametrize(
    ("mode", "divisor"),
    [
        ("weights", 1 * 1 + 0.25 * 2 + 0.5 * 8),
        ("nonzero", 1 + 2 + 8),
        ("completion", 8),
        ("tokens", 1 + 2 + 4 + 8),
    ],
)
def test_divisor_follows_from_the_weights(mode: NormalizationMode, divisor: float) -> None:
    assert denominator(COUNTS, MIXED.model_copy(update={"normalization": mode})) == divisor


def test_a_batch_without_a_counted_token_is_divided_by_one() -> None:
    only_system = LossConfig(role_weights=RoleWeights(system=1.0, completion=0.0))
    assert denominator({Role.USER: 3, Role.COMPLETION: 2}, only_system) == 1.0


def test_data_of_which_no_token_counts_is_refused() -> None:
    only_system = LossConfig(role_weights=RoleWeights(system=1.0, completion=0.0))
    with pytest.raises(InputError) as caught:
        check_counted({Role.SYSTEM: 0, Role.USER: 3, Role.COMPLETION: 2}, only_system)
    assert str(caught.value) == (
        "no token of the training data counts: all are of roles (user, completion) of weight 0; set"
        " loss.prompt_loss_weight or one of loss.role_weights above 0"
    )
    check_counted({Role.SYSTEM: 1, Role.USER: 3, Role.COMPLETION: 2}, only_system)


def write_losses(losses: dict[str, LossConfig], folder: Path) -> None:
    """The losses of one step over one example, under each of several weightings."""
    roles = [Role.TEMPLATE, Role.SYSTEM, Role.USER, Role.USER, Role.TEMPLATE, Role.COMPLETION]
    example = Encoded(id="a", input_ids=[5, 6, 7, 8, 9, 10], roles=[int(role) for role in roles])
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), torch.device("cpu"))
    engine = ZeroEngine(
        WeightedPromptLM(tiny_model()),
        optimizer=OptimizerConfig(),
        deepspeed_config=DeepSpeedConfig(zero_stage=0, precision="float32"),
        ranks=ranks,
        micro_batch_size=1,
    )
    for name, loss in losses.items():
        batch = BatchConfig(global_batch_size=1, micro_batch_size=1)
        step = accumulate_gradient(
            engine, [example], loss=loss, batch=batch, max_length=8, pad_token_id=0
        )
        (folder / f"{name}.json").write_text(json.dumps(asdict(step)))


def test_role_losses_are_means_over_the_tokens_that_were_computed(tmp_path: Path) -> None:
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    log_probabilities = torch.log_softmax(tiny_model()(input_ids=ids).logits[0].detach(), dim=-1)
    # The targets: system, user, user, template, completion.
    system, *user, template, completion = (
        -float(log_probabilities[position, target])
        for position, target in enumerate([6, 7, 8, 9, 10])
    )
    losses = {
        "user": LossConfig(role_weights=RoleWeights(user=0.5)),
        "all but template": LossConfig(
            prompt_loss_weight=0.5, role_weights=RoleWeights(template=0.0)
        ),
        "no completion": LossConfig(
            role_weights=RoleWeights(template=1.0, completion=0.0), normalization="tokens"
        ),
        "completion": LossConfig(),
    }
    run_in_world(1, write_losses, losses, tmp_path)
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in losses}
    expected = {
        "user": ((0.5 * sum(user) + completion) / 2, sum(user) / 2, completion),
        "all but template": (
            (0.5 * system + 0.5 * sum(user) + completion) / 2.5,
            (system + sum(user)) / 3,
            completion,
        ),
        "no completion": (template / 5, template, None),
        "completion": (completion, None, completion),
    }
    for name, means in expected.items():
        step = found[name]
        for value, mean in zip(
            (step["loss"], step["prompt_loss"], step["completion_loss"]), means, strict=True
        ):
            assert value == (None if mean is None else pytest.approx(mean, rel=1e-5)), name


SPEC = """\
name: roles
model: {path: tiny}
data: {path: train.jsonl}
loss: {prompt_loss_weight: 0}
search:
  space:
    loss.role_weights.system: [0, 0.5, null]
    loss.role_weights.completion: [0, 1]
"""


def test_a_sweep_searches_over_the_weight_of_a_role(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SPEC)
    spec = load_spec(tmp_path / "sweep.yaml")
    searched = {"loss.role_weights.system": 0.5, "loss.role_weights.completion": 0}
    assert trial_config(spec, searched).loss.role_weights.model_dump() == {
        "system": 0.5,
        "user": None,
        "template": None,
        "completion": 0.0,
    }


def test_a_trial_in_which_nothing_counts_is_named(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SPEC)
    spec = load_spec(tmp_path / "sweep.yaml")
    searched = {"loss.role_weights.system": 0, "loss.role_weights.completion": 0}
    with pytest.raises(InputError) as caught:
        trial_config(spec, searched)
    assert f"the trial {searched} is not valid: a token of some role" in str(caught.value)
