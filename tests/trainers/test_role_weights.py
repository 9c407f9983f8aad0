"""Loss weights by role."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from orchestrator.plan.planner import trial_config
from orchestrator.spec.search_points import grid_points
from orchestrator.spec.sweep_spec import load_spec
from tests.trainers.gradients import tiny_model
from tests.worlds import run_in_world
from trainers.config import BatchConfig, OptimizerConfig
from trainers.data.roles import EncodedExample, Role
from trainers.deepspeed_config import DeepSpeedConfig
from trainers.engine.ranks import Ranks
from trainers.engine.zero import ZeroEngine
from trainers.foundation.errors import InputError
from trainers.loss import WeightedPromptLM
from trainers.loss_config import LossConfig, RoleWeights
from trainers.step import accumulate_gradient
from trainers.token_weights import role_weights

MIXED = LossConfig(
    prompt_loss_weight=0.25, role_weights=RoleWeights(system=1.0, template=0.0, completion=0.5)
)


def test_roles_without_an_override_have_the_default_weight() -> None:
    assert role_weights(MIXED) == {
        Role.PADDING: 0.0,
        Role.SYSTEM: 1.0,
        Role.USER: 0.25,
        Role.TOOL: 0.25,
        Role.HISTORY: 0.25,
        Role.TEMPLATE: 0.0,
        Role.THINKING: 0.5,
        Role.COMPLETION: 0.5,
        Role.EXCLUDED: 0.0,
    }


def test_thinking_and_tool_results_can_have_weights_of_their_own() -> None:
    """Thinking 0.8 with answers 1, and the PLW of tool results alone."""
    roles = RoleWeights(thinking=0.8, tool=0.3, history=0.0)
    weights = role_weights(LossConfig(prompt_loss_weight=0.1, role_weights=roles))
    assert (weights[Role.THINKING], weights[Role.COMPLETION]) == (0.8, 1.0)
    assert (weights[Role.TOOL], weights[Role.HISTORY], weights[Role.USER]) == (0.3, 0.0, 0.1)


def test_a_weight_of_zero_overrides_the_default() -> None:
    loss = LossConfig(prompt_loss_weight=0.5, role_weights=RoleWeights(user=0.0))
    assert role_weights(loss)[Role.USER] == 0.0


def write_losses(losses: dict[str, LossConfig], folder: Path) -> None:
    """Return the losses of one step over one example for several weightings."""
    roles = [Role.TEMPLATE, Role.SYSTEM, Role.USER, Role.USER, Role.TEMPLATE, Role.COMPLETION]
    example = EncodedExample(
        id="a", input_ids=[5, 6, 7, 8, 9, 10], roles=[int(role) for role in roles]
    )
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
        "tool": None,
        "history": None,
        "template": None,
        "thinking": None,
        "completion": 0.0,
    }


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        # PLW of tool results.
        ("loss.role_weights.tool: [0, 0.3, 1]", [(0, 1), (0.3, 1), (1, 1)]),
        # Thinking 0.8, answers 1.
        ("loss.role_weights.thinking: [0.8, 1]", [(0, 0.8), (0, 1)]),
    ],
)
def test_one_line_of_a_spec_searches_the_weight_of_tools_or_thinking(
    tmp_path: Path, space: str, expected: list[tuple[float, float]]
) -> None:
    (tmp_path / "sweep.yaml").write_text(f"{SPEC.partition('    loss.')[0]}    {space}\n")
    spec = load_spec(tmp_path / "sweep.yaml")
    points = grid_points(spec.search)
    configs = [trial_config(spec, point) for point in points]
    weights = [role_weights(config.loss) for config in configs]
    assert [(one[Role.TOOL], one[Role.THINKING]) for one in weights] == expected
    assert {one[Role.COMPLETION] for one in weights} == {1}


def test_error_names_a_trial_without_weighted_tokens(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SPEC)
    spec = load_spec(tmp_path / "sweep.yaml")
    searched = {"loss.role_weights.system": 0, "loss.role_weights.completion": 0}
    with pytest.raises(InputError) as caught:
        trial_config(spec, searched)
    assert f"the trial {searched} is not valid: the weight of at least one role" in str(
        caught.value
    )
