"""The learning rate against transformers' schedulers, and schedules that do not fit."""

from typing import Any

import pytest
import torch
from transformers import get_scheduler

from trainers.config import OptimizerConfig, ScheduleConfig
from trainers.foundation.errors import InputError
from trainers.schedule import check_schedule, describe_schedule, learning_rate

PEAK, STEPS, WARMUP = 0.5, 40, 4


def transformers_rates(name: str, **arguments: Any) -> list[float]:
    adam = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = get_scheduler(name, adam, WARMUP, STEPS, arguments or None)
    rates = []
    for _ in range(STEPS):
        rates.append(scheduler.get_last_lr()[0])
        adam.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("settings", "name", "arguments"),
    [
        ({"kind": "cosine"}, "cosine", {}),
        ({"kind": "linear"}, "linear", {}),
        ({"kind": "constant"}, "constant_with_warmup", {}),
        (
            {"kind": "cosine", "min_learning_rate_ratio": 0.1},
            "cosine_with_min_lr",
            {"min_lr_rate": 0.1},
        ),
        (
            {"kind": "linear", "min_learning_rate_ratio": 0.2},
            "polynomial",
            {"lr_end": 0.2 * PEAK, "power": 1.0},
        ),
        (
            {"kind": "wsd", "decay_ratio": 0.25, "min_learning_rate_ratio": 0.1},
            "warmup_stable_decay",
            {"num_decay_steps": 10, "decay_type": "linear", "min_lr_ratio": 0.1},
        ),
        ({"kind": "wsd"}, "warmup_stable_decay", {"num_decay_steps": 4, "decay_type": "linear"}),
    ],
)
def test_equals_transformers_after_the_warmup(
    settings: dict[str, Any], name: str, arguments: dict[str, Any]
) -> None:
    optimizer = OptimizerConfig(learning_rate=PEAK)
    schedule = ScheduleConfig(steps=STEPS, warmup_steps=WARMUP, **settings)
    rates = [learning_rate(step, STEPS, optimizer, schedule) for step in range(STEPS)]
    assert rates[WARMUP:] == pytest.approx(transformers_rates(name, **arguments)[WARMUP:])
    # Ours starts one step later than 0.
    assert rates[:WARMUP] == pytest.approx([0.125, 0.25, 0.375, 0.5])


def test_warmup_steps_replace_the_ratio() -> None:
    optimizer = OptimizerConfig(learning_rate=1.0)
    schedule = ScheduleConfig(steps=100, kind="constant", warmup_ratio=0.5, warmup_steps=2)
    assert [learning_rate(step, 100, optimizer, schedule) for step in range(3)] == [0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("settings", "steps", "message"),
    [
        ({"warmup_steps": 20}, 20, "warmup_steps must be less than the run's 20 steps, got 20"),
        (
            {"kind": "wsd", "warmup_steps": 8, "decay_ratio": 0.7},
            20,
            "the warm-up of 8 steps and the decay of 14 steps do not fit into the run's 20 steps",
        ),
        (
            {"kind": "wsd", "warmup_ratio": 0.5, "decay_ratio": 0.75},
            8,
            "the warm-up of 4 steps and the decay of 6 steps do not fit into the run's 8 steps",
        ),
    ],
)
def test_a_schedule_longer_than_the_run_is_rejected(
    settings: dict[str, Any], steps: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_schedule(ScheduleConfig(steps=steps, **settings), steps)


def test_default_schedule_fits_into_a_run_of_one_step() -> None:
    check_schedule(ScheduleConfig(steps=1), 1)
    check_schedule(ScheduleConfig(steps=1, kind="constant"), 1)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "2 of 50 steps warm-up, 48 cosine decay to 0"),
        (
            {"kind": "wsd", "min_learning_rate_ratio": 0.1},
            "2 of 50 steps warm-up, 43 at the peak, 5 linear decay to 0.1 of the peak",
        ),
        ({"kind": "constant", "warmup_steps": 0}, "0 of 50 steps warm-up, 50 at the peak"),
    ],
)
def test_description_states_the_steps(settings: dict[str, Any], text: str) -> None:
    assert describe_schedule(ScheduleConfig(steps=50, **settings), 50) == text
