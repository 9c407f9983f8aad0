"""DeepSpeed settings that may be overridden, and those that other settings determine."""

from pathlib import Path
from typing import Any

import pytest

from tests.trainers.tiny_runs import settings, train_until
from tests.worlds import run_in_world
from trainers.config import TrainConfig
from trainers.deepspeed_config import DeepSpeedConfig
from trainers.engine.memory import state_bytes
from trainers.engine.out_of_memory import out_of_memory_advice
from trainers.foundation.errors import InputError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"zero_stage": 0, "precision": "bfloat16"}, "stage 0 supports only float32"),
        (
            {"zero_stage": 0, "precision": "float32", "offload_optimizer": True},
            "needs deepspeed.zero_stage 1, 2 or 3",
        ),
        ({"zero_stage": 2, "offload_parameters": True}, "needs deepspeed.zero_stage 3"),
        ({"override": {"bfloat16": {"enabled": True}}}, "must not set bfloat16"),
        ({"override": {"gradient_clipping": 2.0}}, "must not set gradient_clipping"),
        ({"override": {"zero_optimization": {"stage": 3}}}, "not set zero_optimization.stage"),
        (
            {"override": {"bf16": {"enabled": True}, "optimizer": {"type": "Lion"}}},
            "must not set optimizer, bf16",
        ),
    ],
)
def test_settings_that_would_silently_change_the_result_are_rejected(
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
        ({"zero_stage": 0, "precision": "float32"}, 4 + 8 + 4),
        ({"zero_stage": 1, "precision": "bfloat16"}, 2 + 4 + 12 / 4),
        ({"zero_stage": 2, "precision": "bfloat16"}, 2 + (4 + 12) / 4),
        ({"zero_stage": 2, "precision": "float32"}, 4 + (4 + 12) / 4 + 4 / 4),
        ({"zero_stage": 3, "precision": "bfloat16"}, (2 + 4 + 12) / 4),
        ({"zero_stage": 2, "precision": "bfloat16", "offload_optimizer": True}, 2 + 4 / 4),
    ],
)
def test_state_bytes_of_each_zero_stage_on_four_ranks(
    deepspeed: dict[str, Any], bytes_per_parameter: float
) -> None:
    """Of a large model, whose buckets of at most 6 GB hardly count."""
    expected = 10**12 * bytes_per_parameter
    assert state_bytes(10**12, config(**deepspeed), 4) == pytest.approx(expected, abs=6e9)


@pytest.mark.parametrize(
    ("stage", "precision", "measured"),
    [
        (0, "float32", 20.08),
        (1, "float32", 24.10),
        (2, "float32", 28.10),
        (3, "float32", 32.14),
        (1, "bfloat16", 18.41),
        (2, "bfloat16", 26.13),
        (3, "bfloat16", 30.14),
    ],
)
def test_state_bytes_are_the_measured_ones(stage: int, precision: str, measured: float) -> None:
    """Private memory per parameter of a Llama of 103M parameters on one CPU rank, at its peak."""
    size = 102_773_760
    estimated = state_bytes(size, config(zero_stage=stage, precision=precision), 1) / size
    assert estimated == pytest.approx(measured, abs=0.5)


def test_moments_of_8_bits_have_a_scale_for_256_of_them() -> None:
    settings = config(zero_stage=2, precision="bfloat16").model_dump()
    settings["optimizer"]["state_bits"] = 8
    estimated = state_bytes(10**12, TrainConfig.model_validate(settings), 4)
    expected = 10**12 * (2 + (4 + 4 + 2 * (1 + 1 / 64)) / 4)
    assert estimated == pytest.approx(expected, abs=6e9)


def test_trained_modules_of_lora_have_states_and_gradients() -> None:
    """Of 8e9 parameters in 2 bytes, and 1e9 trained ones at stage 2 on one rank."""
    settings = config(zero_stage=2, precision="bfloat16").model_dump()
    settings["lora"] = {"modules_to_save": ["lm_head"]}
    lora = TrainConfig.model_validate(settings)
    alone = state_bytes(10**9, config(zero_stage=2, precision="bfloat16"), 1)
    assert state_bytes(8 * 10**9, lora, 1, 10**9) == 8 * 10**9 * 2 + alone
    settings["lora"]["quantization"] = "nf4"
    nf4 = TrainConfig.model_validate(settings)
    assert state_bytes(8 * 10**9, nf4, 1, 10**9) == 8 * 10**9 * 4.127 / 8 + alone


def test_advice_has_no_settings_that_exclude_each_other() -> None:
    settings = config(zero_stage=2, precision="bfloat16").model_dump()
    settings["lora"] = {"quantization": "nf4"}
    settings["optimizer"]["state_bits"] = 8
    advice = out_of_memory_advice(2**30, TrainConfig.model_validate(settings), 2)
    assert "zero_stage" not in advice
    assert "offload_optimizer" not in advice


def test_advice_lists_only_settings_that_can_still_change() -> None:
    settings = config(
        zero_stage=3, precision="bfloat16", gradient_checkpointing=True, offload_optimizer=True
    )
    assert out_of_memory_advice(2**30, settings, 4).endswith("try batch.micro_batch_size 2, lora")


BAD_OVERRIDES: dict[str, dict[str, Any]] = {
    "reduce_buckets: Extra inputs are not permitted, got 3": {
        "zero_optimization": {"reduce_buckets": 3}
    },
    "enabled: Input should be a valid boolean, got 7.5": {"comms_logger": {"enabled": 7.5}},
    "'float12' is not a valid DtypeEnum": {"data_types": {"grad_accum_dtype": "float12"}},
    "'float13' is not a valid DtypeEnum": {"data_types": {"buffer_dtype": "float13"}},
    "must be a mapping, not int": {"zero_optimization": 3},
    "DeepSpeed has no setting zero_optimisation; did you mean zero_optimization": {
        "zero_optimisation": {"reduce_bucket_size": 3}
    },
    "Elastic training has been removed": {"elasticity": {"enabled": False}},
    "'str' object has no attribute 'get'": {"data_types": "bf16"},
}


def train_with_bad_overrides(folder: Path) -> None:
    for message, override in BAD_OVERRIDES.items():
        deepspeed = {"zero_stage": 1, "precision": "float32", "override": override}
        with pytest.raises(InputError, match=f"deepspeed.override: .*{message}"):
            train_until(settings(folder, deepspeed=deepspeed), folder / "run")


def test_an_override_that_deepspeed_rejects_is_an_input_error(tmp_path: Path) -> None:
    run_in_world(1, train_with_bad_overrides, tmp_path)
