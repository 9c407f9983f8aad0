"""What may be asked of DeepSpeed, and what is refused because it follows from other settings."""

from typing import Any

import pytest

from trainers.config import DeepSpeedConfig, TrainConfig
from trainers.engine.memory import advice, state_bytes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"zero_stage": 0, "precision": "bfloat16"}, "stage 0 trains in float32 only"),
        (
            {"zero_stage": 0, "precision": "float32", "offload_optimizer": True},
            "needs deepspeed.zero_stage 1, 2 or 3",
        ),
        ({"zero_stage": 2, "offload_parameters": True}, "needs deepspeed.zero_stage 3"),
        ({"override": {"gradient_clipping": 2.0}}, "must not set gradient_clipping"),
        ({"override": {"zero_optimization": {"stage": 3}}}, "not set zero_optimization.stage"),
        (
            {"override": {"bf16": {"enabled": True}, "optimizer": {"type": "Lion"}}},
            "must not set optimizer, bf16",
        ),
    ],
)
def test_what_would_change_the_result_unseen_is_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        DeepSpeedConfig.model_validate(settings)


def config(**deepspeed: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {"model": {"path": "m"}, "data": {"path": "d"}, "deepspeed": deepspeed}
    )


@pytest.mark.parametrize(
    ("deepspeed", "bytes_per_parameter"),
    [
        ({"zero_stage": 0, "precision": "float32"}, 16),
        ({"zero_stage": 1, "precision": "bfloat16"}, 2 + 2 + 12 / 4),
        ({"zero_stage": 2, "precision": "bfloat16"}, 2 + (2 + 12) / 4),
        ({"zero_stage": 3, "precision": "bfloat16"}, 16 / 4),
        ({"zero_stage": 2, "precision": "bfloat16", "offload_optimizer": True}, 2),
    ],
)
def test_states_take_what_zero_leaves_on_each_of_four_ranks(
    deepspeed: dict[str, Any], bytes_per_parameter: float
) -> None:
    assert state_bytes(1000, config(**deepspeed), 4) == 1000 * bytes_per_parameter


def test_advice_names_only_what_is_left_to_try() -> None:
    settings = config(
        zero_stage=3, precision="bfloat16", gradient_checkpointing=True, offload_optimizer=True
    )
    assert advice(2**30, settings, 4).endswith("try batch.micro_batch_size 2, lora")
