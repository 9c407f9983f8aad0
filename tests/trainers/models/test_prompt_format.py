from pathlib import Path

import pytest

from trainers.config import DataConfig
from trainers.foundation.files import sha256_of, write_json
from trainers.models.prompt_format import TrainedAs, read_trained_as, write_trained_as


def test_a_model_folder_says_how_it_was_trained(tmp_path: Path) -> None:
    write_trained_as(tmp_path, DataConfig(path="d.jsonl", template="alpaca", max_length=64))
    assert read_trained_as(str(tmp_path)) == TrainedAs(template="alpaca", max_length=64)


def test_a_template_file_is_told_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "prompt.jinja"
    file.write_text("Q: {{ prompt }}")
    write_trained_as(tmp_path, DataConfig(path="d.jsonl", template="prompt.jinja"))
    found = read_trained_as(str(tmp_path))
    assert found is not None
    assert (found.template, found.template_sha256) == (str(file), sha256_of(file))


def test_a_model_of_an_earlier_version_is_told_by_its_run(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    config = {"data": {"template": "plain", "max_length": 32}}
    write_json(tmp_path / "train.json", {"config": config, "result": {}})
    assert read_trained_as(str(tmp_path / "model")) == TrainedAs(template="plain", max_length=32)


def test_a_model_that_was_not_trained_here_says_nothing(tmp_path: Path) -> None:
    assert read_trained_as(str(tmp_path)) is None
    assert read_trained_as("some/hub-name") is None
