from pathlib import Path

import pytest

from trainers.data_config import DataConfig
from trainers.foundation.files import sha256_file, write_json
from trainers.models.prompt_format import PromptFormat, read_prompt_format, write_prompt_format


def test_a_model_folder_records_its_prompt_format(tmp_path: Path) -> None:
    write_prompt_format(tmp_path, DataConfig(path="d.jsonl", template="alpaca", max_length=64))
    assert read_prompt_format(str(tmp_path)) == PromptFormat(template="alpaca", max_length=64)


def test_a_template_file_is_identified_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "prompt.jinja"
    file.write_text("Q: {{ prompt }}")
    write_prompt_format(tmp_path, DataConfig(path="d.jsonl", template="prompt.jinja"))
    found = read_prompt_format(str(tmp_path))
    assert found is not None
    assert (found.template, found.template_sha256) == (str(file), sha256_file(file))


def test_the_prompt_format_of_an_older_model_comes_from_its_run(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    config = {"data": {"template": "plain", "max_length": 32}}
    write_json(tmp_path / "train.json", {"config": config, "result": {}})
    assert read_prompt_format(str(tmp_path / "model")) == PromptFormat(
        template="plain", max_length=32
    )


def test_a_model_from_elsewhere_has_no_prompt_format(tmp_path: Path) -> None:
    assert read_prompt_format(str(tmp_path)) is None
    assert read_prompt_format("some/hub-name") is None
