"""Identity of scores: which settings of other releases count as the same."""

import json
from typing import Any

import pytest

from evals.config import EvalConfig
from evals.scoring_identity import is_same_scoring, scoring_identity

TASKS = {"tasks": ["arc_challenge", {"name": "piqa", "num_fewshot": 2}], "limit": 10}


def identity(**settings: Any) -> dict[str, Any]:
    config = EvalConfig.model_validate(settings)
    return scoring_identity([], config, template="plain", max_length=64)


@pytest.mark.parametrize("settings", [{}, TASKS, {"memorisation": {"examples": 3}}])
def test_scores_recorded_before_a_setting_existed_are_the_same(settings: dict[str, Any]) -> None:
    requested = identity(**settings)
    recorded = json.loads(json.dumps({**requested, "device": "cpu"}))
    assert is_same_scoring(recorded, requested)
    # As if this setting had been added since, with its default.
    del recorded["measures"]["heldout_choice"]["choices"]
    assert is_same_scoring(recorded, requested)


def test_scores_recorded_under_the_old_names_of_measures_are_the_same() -> None:
    requested = identity()
    recorded = json.loads(json.dumps(requested))
    measures = recorded["measures"]
    measures["multiple_choice"] = measures.pop("heldout_choice")
    measures["short_generation"] = measures.pop("heldout_exact_match")
    measures["long_generation"] = measures.pop("heldout_chrf")
    assert is_same_scoring(recorded, requested)
    measures["multiple_choice"]["choices"] = 5
    assert not is_same_scoring(recorded, requested)


def test_other_settings_items_or_versions_are_different_scores() -> None:
    requested = identity()
    assert not is_same_scoring(identity(heldout={"examples": 3}), requested)
    assert not is_same_scoring(identity(seed=1), requested)
    assert not is_same_scoring({**requested, "items_sha256": "0"}, requested)
    assert not is_same_scoring({**requested, "version": 0}, requested)
    assert not is_same_scoring({}, requested)
    unknown = {**requested, "measures": {**requested["measures"], "unheard_of": 1}}
    assert not is_same_scoring(unknown, requested)
