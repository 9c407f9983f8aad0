"""Renamed settings: old names are rejected in a spec and mapped in records."""

from pathlib import Path

import pytest

from trainers.config import TrainConfig, is_same_config
from trainers.foundation.errors import InputError
from trainers.foundation.renamed_settings import current_name, with_current_names
from trainers.foundation.settings_file import load_config

NEW = {"model": {"path": "m"}, "optimizer": {"learning_rate": 1e-4, "l2_sp": 0.1}}
OLD = {"model": {"path": "m"}, "optimizer": {"learning_rate": 1e-4, "distance_penalty": 0.1}}


def test_an_old_name_in_a_file_is_rejected_with_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("model: {path: m}\ndata: {path: d}\noptimizer:\n  distance_penalty: 0.1\n")
    with pytest.raises(InputError) as caught:
        load_config(TrainConfig, path)
    assert str(caught.value).replace(f"{tmp_path}/", "") == (
        "train.yaml:4: optimizer.distance_penalty was renamed to optimizer.l2_sp; use the new name"
    )


def test_records_are_mapped_to_the_current_names() -> None:
    assert with_current_names(OLD) == NEW
    assert with_current_names(NEW) == NEW


def test_current_name_of_a_path_below_a_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "trainers.foundation.renamed_settings.RENAMED_SETTINGS",
        {"evals.judge.old": "evals.judge.new"},
    )
    assert current_name("evals.judge.old") == "evals.judge.new"
    assert current_name("judge.old") == "judge.new"
    assert current_name("old") is None
    assert current_name("other.judge.old") is None


def test_a_record_with_the_old_name_or_without_a_new_default_has_the_same_config() -> None:
    config = TrainConfig.model_validate({**NEW, "data": {"path": "d"}})
    recorded = config.model_dump(mode="json")
    recorded["optimizer"]["distance_penalty"] = recorded["optimizer"].pop("l2_sp")
    del recorded["data"]["too_long"]
    assert is_same_config(recorded, config)
    assert not is_same_config({**recorded, "seed": 1}, config)
    assert not is_same_config({**recorded, "unheard_of": 1}, config)
