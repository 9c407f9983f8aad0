"""Settings of the judge: rules and requests."""

from typing import Any

import pytest
from pydantic import ValidationError

from evals.config import EvalConfig
from evals.judge_config import AlpacaEvalConfig, JudgeConfig, JudgedSetConfig

ENDPOINT: dict[str, Any] = {"base_url": "https://judges.example/v1", "model": "strict"}


def test_judge_config_round_trips_through_json() -> None:
    config = JudgeConfig(**ENDPOINT, budget=5.0, price_per_million_input_tokens=1.0)
    assert JudgeConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "a judge needs base_url and model, or local_model"),
        ({"base_url": "https://judges.example/v1"}, "model must name the judge at base_url"),
        (ENDPOINT | {"local_model": "judge"}, "a judge needs base_url and model, or local_model"),
        ({"local_model": "judge", "model": "x"}, "remove it next to local_model"),
        (ENDPOINT | {"base_url": "judges.example/v1"}, "begin it with https://"),
        (ENDPOINT | {"base_url": "https://me:secret@j.example/v1"}, "must hold no user, password"),
        (ENDPOINT | {"budget": 5.0}, "budget needs a price"),
        (ENDPOINT | {"max_unparsable_share": 1.5}, "less than or equal to 1"),
        (ENDPOINT | {"key": "sk-1"}, "Extra inputs are not permitted"),
    ],
)
def test_an_unusable_judge_is_rejected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        JudgeConfig(**settings)


def test_judged_tasks_need_a_judge_and_unique_names() -> None:
    alpaca_eval = AlpacaEvalConfig(reference="outputs.json")
    with pytest.raises(ValidationError, match=r"evals.judge must be set for alpaca_eval"):
        EvalConfig(alpaca_eval=alpaca_eval)
    custom = JudgedSetConfig(name="pandalm_prompts", path="custom.jsonl")
    with pytest.raises(
        ValidationError, match="not those of built-in evaluations, got pandalm_prompts"
    ):
        EvalConfig(judged=[custom], judge=JudgeConfig(**ENDPOINT))


def test_null_settings_are_left_out_of_requests() -> None:
    config = JudgeConfig(
        **ENDPOINT, temperature=None, seed=None, token_limit_field="max_completion_tokens"
    )
    assert config.request_settings() == {"max_completion_tokens": 256}


def test_a_judged_task_by_name_keeps_its_limit() -> None:
    tasks = [{"name": "alpaca_eval", "limit": 7}, "arc_challenge"]
    config = EvalConfig.model_validate({"tasks": tasks, "judge": ENDPOINT})
    assert config.alpaca_eval == AlpacaEvalConfig(examples=7)
    assert [task.name for task in config.tasks] == ["arc_challenge"]
