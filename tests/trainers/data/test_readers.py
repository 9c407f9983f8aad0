"""Examples are read from the usual formats; all problems of the data are reported at once."""

import inspect
import json
from datetime import date
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from trainers.data.examples import Example, Message, pair
from trainers.data.readers import ACCEPTED_FORMS, read_examples
from trainers.data.records import OTHER_NAMES
from trainers.foundation.errors import InputError

ALPACA = {"instruction": "Name a colour.", "input": "", "output": "Red."}


def jsonl(folder: Path, *records: Any) -> str:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def problems_of(path: str, folder: Path) -> list[str]:
    """Return the problems as lines, with file names without their folder."""
    with pytest.raises(InputError) as caught:
        read_examples(path)
    return str(caught.value).replace(f"{folder}/", "").split("\n")


def turns(example: Example) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in example.messages]


def test_prompt_of_an_alpaca_record_without_input_is_the_instruction(tmp_path: Path) -> None:
    assert read_examples(jsonl(tmp_path, ALPACA)) == [
        Example(
            id="data.jsonl:1",
            messages=(
                Message(role="user", content="Name a colour."),
                Message(role="assistant", content="Red."),
            ),
            instruction="Name a colour.",
            input="",
        )
    ]


@pytest.mark.parametrize("empty", [{}, {"input": None}, {"input": "  "}])
def test_alpaca_input_may_be_missing_null_or_blank(tmp_path: Path, empty: dict[str, Any]) -> None:
    record = {"instruction": "Name a colour.", "output": "Red.", **empty}
    [example] = read_examples(jsonl(tmp_path, record))
    assert (example.prompt, example.input) == ("Name a colour.", "")


def test_prompt_of_an_alpaca_record_contains_instruction_and_input(tmp_path: Path) -> None:
    [example] = read_examples(
        jsonl(tmp_path, {"instruction": "Add.", "input": "1, 2", "output": "3"})
    )
    assert turns(example) == [("user", "Add.\n\n1, 2"), ("assistant", "3")]
    assert (example.instruction, example.input) == ("Add.", "1, 2")


@pytest.mark.parametrize("answer", ["completion", "response"])
def test_prompt_and_completion_are_a_pair(tmp_path: Path, answer: str) -> None:
    path = jsonl(tmp_path, {"prompt": "Q", answer: "A", "source": 3})
    assert read_examples(path) == [pair("data.jsonl:1", prompt="Q", completion="A")]


def test_prompt_and_completion_may_be_messages(tmp_path: Path) -> None:
    record = {
        "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}],
        "completion": [{"role": "assistant", "content": "A"}],
    }
    [example] = read_examples(jsonl(tmp_path, record))
    assert turns(example) == [("system", "S"), ("user", "Q"), ("assistant", "A")]
    assert (example.instruction, example.input) == (None, None)


@pytest.mark.parametrize("field", ["messages", "conversations"])
def test_chats_are_read_from_both_field_names(tmp_path: Path, field: str) -> None:
    chat = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    [example] = read_examples(jsonl(tmp_path, {field: chat}))
    assert turns(example) == [("user", "Q"), ("assistant", "A")]


def test_sharegpt_names_are_accepted(tmp_path: Path) -> None:
    record = {
        "conversations": [
            {"from": "system", "value": "S"},
            {"from": "human", "value": "Q1"},
            {"from": "gpt", "value": "A1"},
            {"from": "human", "value": "Q2"},
            {"from": "gpt", "value": "A2"},
        ]
    }
    [example] = read_examples(jsonl(tmp_path, record))
    assert turns(example) == [
        ("system", "S"),
        ("user", "Q1"),
        ("assistant", "A1"),
        ("user", "Q2"),
        ("assistant", "A2"),
    ]
    assert (example.prompt, example.completion) == ("Q2", "A2")


def test_one_file_may_mix_forms(tmp_path: Path) -> None:
    path = jsonl(tmp_path, ALPACA, {"prompt": "Q", "completion": "A"})
    assert [example.completion for example in read_examples(path)] == ["Red.", "A"]


def test_ids_count_lines_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    line = json.dumps(ALPACA)
    path.write_text(f"\ufeff{line}\r\n\n   \n{line}", encoding="utf-8")
    ids = [example.id for example in read_examples(str(path))]
    assert ids == ["data.jsonl:1", "data.jsonl:4"]


def test_a_line_separator_inside_a_text_does_not_end_the_line(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "a\u2028b\x85", "completion": "c"}\n', encoding="utf-8")
    assert read_examples(str(path))[0].prompt == "a\u2028b\x85"


@pytest.mark.parametrize("content", [[ALPACA, ALPACA], {"version": 1, "data": [ALPACA, ALPACA]}])
def test_json_may_be_a_list_or_an_object_with_one(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    ids = [example.id for example in read_examples(str(path))]
    assert ids == ["data.json[0]", "data.json[1]"]


def test_tools_in_a_parquet_file_may_contain_dates(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    tool = {"name": "look", "since": date(2026, 11, 29)}
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    pyarrow.parquet.write_table(pa.Table.from_pylist([{"messages": turns, "tools": [tool]}]), path)
    [example] = read_examples(str(path))
    assert example.tools == (tool,)


def test_parquet_columns_that_a_record_lacks_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    chat = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    records = [
        {"instruction": "I", "output": "O", "messages": None},
        {"instruction": None, "output": None, "messages": chat},
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist(records), path)
    examples = read_examples(str(path))
    assert [example.id for example in examples] == ["data.parquet[0]", "data.parquet[1]"]
    assert [example.completion for example in examples] == ["O", "A"]
    assert [example.instruction for example in examples] == ["I", None]


def test_error_for_invalid_json_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    lines = [json.dumps(ALPACA)] * 40
    lines[36] = lines[36][:-1]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert problems_of(str(path), tmp_path) == [
        "data.jsonl:37: not valid JSON: Expecting ',' delimiter at column 64; write one object"
        " per line, or rename a file with one list to .json"
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            [ALPACA, ALPACA],
            "the file is one JSON list, not one record per line; rename it to my.json",
        ),
        (
            {"data": [ALPACA]},
            "the file is one JSON object, not one record per line; rename it to my.json",
        ),
        (ALPACA, "the file is one JSON object, not one record per line; write one object per line"),
    ],
)
def test_one_json_value_in_a_jsonl_file_is_one_problem(
    tmp_path: Path, content: Any, problem: str
) -> None:
    path = tmp_path / "my.jsonl"
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
    assert problems_of(str(path), tmp_path) == [f"my.jsonl: {problem}"]


def test_a_list_in_one_line_of_a_jsonl_file_is_one_problem(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    path.write_text(json.dumps([ALPACA] * 3), encoding="utf-8")
    assert problems_of(str(path), tmp_path) == [
        "my.jsonl: the file is one JSON list, not one record per line; rename it to my.json"
    ]


def test_all_problems_are_reported_at_once_in_file_order(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        ALPACA,
        {"prompt": " ", "completion": ""},
        {"prompt": 5, "completion": None, "response": {"text": "A"}},
        "text",
        {"instruction": "I", "answer": "A", "output": None},
        {},
        {"prompt": "Q", "completion": "half \ud83d"},
    )
    assert problems_of(path, tmp_path) == [
        'data.jsonl:2: prompt must not be empty, got " "; fill it in or drop the record',
        'data.jsonl:2: completion must not be empty, got ""; fill it in, or add empty to data.drop',
        "data.jsonl:3: prompt must be a string, got 5",
        'data.jsonl:3: response must be a string, got {"text": "A"}',
        f'data.jsonl:4: a record must be an object, got "text"; {ACCEPTED_FORMS}',
        "data.jsonl:5: output must not be empty, got null; fill it in, or add empty to data.drop",
        f"data.jsonl:6: the fields match no accepted form: none; {ACCEPTED_FORMS}",
        "data.jsonl:7: completion contains half a surrogate pair, which is not a character;"
        " fix the text",
    ]


ROLES = (
    "system, developer, user, human, assistant, gpt, model, bot, tool, function, observation,"
    " ipython, function_call"
)


ADD_ANSWER = "add the answer, or remove the turns after the last answer"


def message(role: Any, content: Any = "text") -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"messages": "Hi"}, 'messages must be a list of messages, got "Hi"'),
        (
            {"messages": ["Hi", message("assistant")]},
            'messages[0] must be an object with role and content, got "Hi"',
        ),
        (
            {"messages": [message("narrator"), message("assistant")]},
            f'messages[0].role must be one of {ROLES}, got "narrator"',
        ),
        (  # tool_call_id, which belongs to tool turns, adds no second problem.
            {"messages": [{**message("tols"), "tool_call_id": "1"}, message("assistant")]},
            f'messages[0].role must be one of {ROLES}, got "tols"; did you mean tool?',
        ),
        (
            {"messages": [message(["user"]), message("assistant")]},
            f'messages[0].role must be one of {ROLES}, got ["user"]; did you mean user?',
        ),
        (
            {"conversations": [{"from": "bing", "value": "text"}, message("assistant")]},
            f'conversations[0].from must be one of {ROLES}, got "bing"',
        ),
        (
            {"messages": [{"content": "text"}, message("assistant")]},
            f"messages[0].role must be one of {ROLES}, got null",
        ),
        (
            {"messages": [message("user"), message("assistant", {"type": "text"})]},
            'messages[1].content must be a string, got {"type": "text"}',
        ),
        (
            {"messages": [message("user", ""), message("assistant")]},
            'messages[0].content must not be empty, got ""; fill it in or drop the record',
        ),
        (
            {"messages": [message("user"), message("assistant"), message("user")]},
            f"a chat must end with an assistant turn, got a final user turn; {ADD_ANSWER}",
        ),
        (
            {"messages": []},
            f"a chat must end with an assistant turn, got an empty list; {ADD_ANSWER}",
        ),
        (
            {"messages": [message("system"), message("assistant")]},
            "the prompt must contain a user turn, got none",
        ),
        (
            {"prompt": [message("user")], "completion": [message("assistant"), message("user")]},
            f"a chat must end with an assistant turn, got a final user turn; {ADD_ANSWER}",
        ),
        (
            {"prompt": [message("user")], "completion": [message("user")]},
            f"a chat must end with an assistant turn, got a final user turn; {ADD_ANSWER}",
        ),
    ],
)
def test_error_describes_the_problem_of_a_chat(
    tmp_path: Path, record: dict[str, Any], problem: str
) -> None:
    assert problems_of(jsonl(tmp_path, record), tmp_path) == [f"data.jsonl:1: {problem}"]


def test_a_long_list_of_problems_is_truncated_and_counted(tmp_path: Path) -> None:
    records = [{"prompt": index, "completion": "A"} for index in range(33)]
    problems = problems_of(jsonl(tmp_path, *records), tmp_path)
    assert len(problems) == 21
    assert problems[19] == "data.jsonl:20: prompt must be a string, got 19"
    assert problems[20] == "data.jsonl: and 13 more problems"


def test_a_problem_of_many_records_is_listed_once_with_its_first_lines(tmp_path: Path) -> None:
    wrong = {"question_text": "Q", "best_answer": "A"}
    records = [wrong, {"prompt": 5, "completion": "A"}, *[wrong] * 22]
    assert problems_of(jsonl(tmp_path, *records), tmp_path) == [
        "data.jsonl:1: the fields match no accepted form: question_text, best_answer (also"
        f" lines 3, 4, 5 and 19 more records); {ACCEPTED_FORMS}; {OTHER_NAMES}",
        "data.jsonl:2: prompt must be a string, got 5",
    ]


@pytest.mark.parametrize("name", ["data.jsonl", "data.json"])
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_records_is_rejected(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    problems = problems_of(str(tmp_path / name), tmp_path)
    assert problems == [f"{name}: no records in the data; {ACCEPTED_FORMS}"]


def test_json_syntax_errors_have_the_line(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text('[\n {"prompt": "Q",\n  "completion": "A"\n ]\n', encoding="utf-8")
    assert problems_of(str(path), tmp_path) == [
        "data.json:4: not valid JSON: Expecting ',' delimiter at column 2; if it has one record"
        " per line, rename it to .jsonl"
    ]


@pytest.mark.parametrize("content", ["5", '{"a": [], "b": []}', '{"a": 1}'])
def test_json_without_one_list_is_rejected(tmp_path: Path, content: str) -> None:
    (tmp_path / "data.json").write_text(content, encoding="utf-8")
    assert problems_of(str(tmp_path / "data.json"), tmp_path) == [
        f"data.json: must be a list of records, or an object with one list; {ACCEPTED_FORMS}"
    ]


def test_error_for_a_file_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"prompt": "Q", "completion": "A"}\n{"prompt": "caf\xe9"}\n')
    assert problems_of(str(path), tmp_path) == [
        "data.jsonl:2: must be UTF-8, got the byte 0xe9; save the file as UTF-8"
    ]


def test_a_file_that_is_not_parquet_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "data.parquet").write_bytes(b"not at all a Parquet file")
    problems = problems_of(str(tmp_path / "data.parquet"), tmp_path)
    assert problems[0].startswith("data.parquet: not a Parquet file: ")


@pytest.mark.parametrize("name", ["missing.jsonl", "./missing", "folder/missing.parquet"])
def test_a_missing_file_is_not_treated_as_a_hub_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert problems_of(name, tmp_path) == [f"{name}: no such file; correct data.path"]


@pytest.mark.parametrize(
    ("name", "message", "fix"),
    [
        (
            "notes.txt",
            "data.path must be",
            "rename or convert the file, or use the name of a hub data set",
        ),
        ("folder", "the folder must contain", "correct data.path"),
    ],
)
def test_files_of_other_types_are_rejected(
    tmp_path: Path, name: str, message: str, fix: str
) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder").mkdir()
    assert problems_of(str(tmp_path / name), tmp_path) == [
        f"{name}: {message} a file that ends in .jsonl, .json, .csv or .tsv (also with .gz, .bz2"
        f" or .zst) or .parquet; {fix}"
    ]


def test_error_for_unknown_demo_data_lists_the_known_names() -> None:
    with pytest.raises(InputError) as caught:
        read_examples("demo:python-docs")
    assert str(caught.value) == (
        "data.path must name an existing demo set, got demo:python-docs; use"
        " demo:python-docs-short or demo:python-docs-long"
    )


def test_a_split_of_a_hub_data_set_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    datasets_load = datasets.load_dataset

    def load_dataset(path: str, **options: Any) -> datasets.Dataset:
        inspect.signature(datasets_load).bind(path, **options)
        asked.append((path, options))
        return datasets.Dataset.from_list([ALPACA, {**ALPACA, "output": "Blue."}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    examples = read_examples("someone/colours", split="validation", name="en", revision="v2")
    options = {"split": "validation", "name": "en", "revision": "v2"}
    assert asked == [("someone/colours", options)]
    assert [example.id for example in examples] == ["someone/colours[0]", "someone/colours[1]"]
    assert [example.completion for example in examples] == ["Red.", "Blue."]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ConnectionError("Couldn't reach 'someone/colours' on the Hub (OfflineModeIsEnabled)"),
            "someone/colours: neither a file nor a hub data set that can be reached:"
            " Couldn't reach 'someone/colours' on the Hub (OfflineModeIsEnabled);"
            " correct data.path, or connect to the hub",
        ),
        (
            ValueError('Unknown split "x". Should be one of ["train"].'),
            'someone/colours: the hub data set cannot be loaded: Unknown split "x". Should be one'
            ' of ["train"]; correct data.path, data.name, data.revision or data.split',
        ),
    ],
)
def test_a_hub_data_set_that_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def load_dataset(path: str, **options: Any) -> datasets.Dataset:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError) as caught:
        read_examples("someone/colours")
    assert str(caught.value) == message
