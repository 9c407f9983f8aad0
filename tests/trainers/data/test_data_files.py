"""A data path names a file, a folder or a pattern; columns may have names of the user."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from trainers.data.readers import read_examples
from trainers.foundation.errors import InputError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `data` with files of two types, a file of another type and hidden files."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.jsonl", "sub/c.jsonl", ".hidden/d.jsonl", ".e.jsonl"):
        write(tmp_path / "data" / name, {"prompt": name, "completion": "A"})
    (tmp_path / "data/a.csv").write_text("prompt,completion\na.csv,A\n", encoding="utf-8")
    (tmp_path / "data/README.md").touch()
    return tmp_path


def write(path: Path, *records: dict[str, Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return str(path)


def problems_of(path: str, **settings: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        read_examples(path, **settings)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        ("data", ["a.csv:2", "b.jsonl:1", "sub/c.jsonl:1"]),
        ("./data/", ["a.csv:2", "b.jsonl:1", "sub/c.jsonl:1"]),
        ("data/*.jsonl", ["b.jsonl:1"]),
        ("data/*.[jc]s*", ["a.csv:2", "b.jsonl:1"]),
        ("data/**/*.jsonl", ["b.jsonl:1", "sub/c.jsonl:1"]),
        ("*/sub/?.jsonl", ["data/sub/c.jsonl:1"]),
    ],
)
def test_files_of_folders_and_patterns_are_read_in_order(
    folder: Path, path: str, ids: list[str]
) -> None:
    assert [example.id for example in read_examples(path)] == ids


def test_a_file_may_have_the_characters_of_a_pattern(folder: Path) -> None:
    write(folder / "what? [1].jsonl", {"prompt": "Q", "completion": "A"})
    assert [one.id for one in read_examples("what? [1].jsonl")] == ["what? [1].jsonl:1"]


def test_errors_name_the_file_of_the_folder_and_its_line(folder: Path) -> None:
    write(folder / "data/sub/c.jsonl", {"prompt": "Q", "completion": "A"}, {"prompt": "Q"})
    [problem] = problems_of("data")
    assert problem.startswith("data/sub/c.jsonl:2: the fields match no accepted form: prompt;")


def test_a_pattern_must_match_data_files(folder: Path) -> None:
    assert problems_of("data/*.json") == [
        "data/*.json: no file matches the pattern; correct data.path"
    ]
    [problem] = problems_of("data/*")
    assert problem.startswith("data/README.md: data.path must match only files that end in .jsonl")


TRUTHFULQA = {"question": "Q", "best_answer": "A", "correct_answers": ["A"], "source": "W"}


def test_columns_are_read_under_our_names(folder: Path) -> None:
    path = write(folder / "t.jsonl", TRUTHFULQA)
    [example] = read_examples(path, columns={"prompt": "question", "completion": "best_answer"})
    assert (example.prompt, example.completion) == ("Q", "A")


def test_columns_of_chats_are_read_under_our_names(folder: Path) -> None:
    dialog = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    record = {"dialog": dialog, "sys": "S", "functions_json": '[{"name": "f"}]'}
    columns = {"messages": "dialog", "system": "sys", "tools": "functions_json"}
    [example] = read_examples(write(folder / "t.jsonl", record), columns=columns)
    assert [(m.role, m.content) for m in example.messages] == [
        ("system", "S"),
        ("user", "Q"),
        ("assistant", "A"),
    ]
    assert example.tools == ({"name": "f"},)


def test_an_unknown_column_is_reported_once_with_the_columns_found(folder: Path) -> None:
    path = write(folder / "t.jsonl", *[TRUTHFULQA] * 30)
    assert problems_of(path, columns={"prompt": "qestion", "completion": "best_answer"}) == [
        f"{path}: no record has the column qestion of data.columns.prompt; found question,"
        " best_answer, correct_answers, source; did you mean question?"
    ]


def test_a_field_that_a_column_would_replace_is_an_error_unless_ignored(folder: Path) -> None:
    path = write(folder / "t.jsonl", {"prompt": "P", "long_prompt": "Q", "completion": "A"})
    columns = {"prompt": "long_prompt"}
    assert problems_of(path, columns=columns) == [
        f"{path}:1: the record has prompt and long_prompt, which data.columns reads as prompt;"
        " list prompt in data.ignore to train without it"
    ]
    [example] = read_examples(path, columns=columns, ignore=["prompt"])
    assert example.prompt == "Q"


@pytest.mark.parametrize("name", ["test.jsonl", "sub/data-validation-00001.jsonl"])
def test_a_folder_with_several_splits_is_an_error(folder: Path, name: str) -> None:
    """So that test data is never trained on by accident."""
    write(folder / "hub/train.jsonl", {"prompt": "Q", "completion": "A"})
    write(folder / "hub" / name, {"prompt": "Q", "completion": "A"})
    names = ", ".join(sorted([name, "train.jsonl"], reverse=True))
    assert problems_of("hub/") == [
        f"hub/: the folder has files of several splits: {names}; name those to train on, such as"
        " hub/**/*train*"
    ]
    assert [example.id for example in read_examples("hub/**/*train*")] == ["train.jsonl:1"]


def test_a_folder_of_save_to_disk_is_an_error_with_a_fix_that_works(folder: Path) -> None:
    data = datasets.Dataset.from_list([{"prompt": "Q", "completion": "A"}])
    data.save_to_disk("saved")
    assert problems_of("saved") == [
        "saved: the folder was written by save_to_disk of datasets, which plw does not read; write"
        " it as Parquet: load_from_disk(folder).to_parquet('data.parquet')"
    ]
    datasets.load_from_disk("saved").to_parquet("data.parquet")
    assert [example.prompt for example in read_examples("data.parquet")] == ["Q"]


def test_settings_that_do_not_apply_to_the_data_are_errors(folder: Path) -> None:
    assert problems_of("data/b.jsonl", revision="main", split="test") == [
        "data/b.jsonl: data.revision does not apply to files; remove data.revision",
        "data/b.jsonl: data.split does not apply to files; remove data.split",
    ]
    assert problems_of("demo:python-docs-short", columns={"prompt": "doc"}) == [
        "demo:python-docs-short: data.columns does not apply to demo data; remove data.columns"
    ]


@pytest.mark.parametrize("name", ["prompt", "chosen"])
def test_messages_may_be_json_text_in_every_column(folder: Path, name: str) -> None:
    prompt = [{"role": "user", "content": "Q"}]
    answer = [{"role": "assistant", "content": "A"}]
    records = {
        "prompt": {"prompt": json.dumps(prompt), "completion": json.dumps(answer)},
        "chosen": {"chosen": json.dumps(prompt + answer), "rejected": json.dumps(prompt)},
    }
    [example] = read_examples(write(folder / "t.jsonl", records[name]))
    assert [(m.role, m.content) for m in example.messages] == [("user", "Q"), ("assistant", "A")]


def test_a_prompt_that_is_another_json_text_stays_a_text(folder: Path) -> None:
    text = '[{"x": 1}]'
    [example] = read_examples(write(folder / "t.jsonl", {"prompt": text, "completion": text}))
    assert (example.prompt, example.completion) == (text, text)


def test_history_may_be_json_text(folder: Path) -> None:
    record = {"instruction": "Q2", "output": "A2", "history": '[["Q1", "A1"]]'}
    [example] = read_examples(write(folder / "t.jsonl", record))
    assert [m.content for m in example.messages] == ["Q1", "A1", "Q2", "A2"]
