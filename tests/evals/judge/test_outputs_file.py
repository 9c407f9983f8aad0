"""Read and match files of prompts and outputs."""

import json
from pathlib import Path

import pytest

from evals.judge.outputs_file import match_outputs, read_outputs, read_prompts
from trainers.foundation.errors import InputError


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_json_lists_and_jsonl_are_read(tmp_path: Path) -> None:
    record = {"instruction": "Add.", "input": "1 2", "output": "3", "generator": "m"}
    lines = write(tmp_path / "a.jsonl", record)
    listed = tmp_path / "b.json"
    listed.write_text(json.dumps([record], indent=1))
    [one], [two] = read_outputs(lines), read_outputs(listed)
    assert (one.task, one.output, one.id) == ("Add.\n\n1 2", "3", "a.jsonl:1")
    assert (two.task, two.output, two.id) == ("Add.\n\n1 2", "3", "b.json[0]")


def test_prompts_need_no_output(tmp_path: Path) -> None:
    [record] = read_prompts(write(tmp_path / "a.jsonl", {"instruction": "Sing.", "input": ""}))
    example = record.to_example()
    assert (example.prompt, example.instruction, example.input) == ("Sing.", "Sing.", "")


def test_outputs_match_by_prompt_and_repeated_prompts_in_order(tmp_path: Path) -> None:
    candidates = write(
        tmp_path / "ours.jsonl",
        {"instruction": "B", "output": "b1"},
        {"instruction": "A", "output": "a1"},
        {"instruction": "A", "output": "a2"},
    )
    references = write(
        tmp_path / "theirs.jsonl",
        {"instruction": "A", "output": "x1"},
        {"instruction": "C", "output": "x3"},
        {"instruction": "A", "output": "x2"},
        {"instruction": "B", "output": "y1"},
    )
    pairs, num_left_out = match_outputs(
        read_outputs(candidates), read_outputs(references), where="candidates"
    )
    assert [(p.instruction, p.candidate, p.reference) for p in pairs] == [
        ("B", "b1", "y1"),
        ("A", "a1", "x1"),
        ("A", "a2", "x2"),
    ]
    assert num_left_out == 1


def test_an_output_without_a_reference_is_rejected(tmp_path: Path) -> None:
    candidates = read_outputs(write(tmp_path / "a.jsonl", {"instruction": "B", "output": "b"}))
    references = read_outputs(write(tmp_path / "b.jsonl", {"instruction": "C", "output": "c"}))
    with pytest.raises(InputError, match=r"1 of 1 outputs have no reference .* a.jsonl:1: 'B'"):
        match_outputs(candidates, references, where="candidates")


def test_an_instruction_may_be_blank_if_there_is_an_input(tmp_path: Path) -> None:
    # As in the 162nd of PandaLM's prompts.
    path = write(tmp_path / "a.jsonl", {"instruction": " ", "input": "Truthfulness"})
    [record] = read_prompts(path)
    assert record.task == " \n\nTruthfulness"
    assert record.to_example().messages[0].content == " \n\nTruthfulness"


def test_each_invalid_record_is_reported_with_its_place(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        {"instruction": "B", "output": "b"},
        {"instruction": " ", "output": "b"},
        {"instruction": "B", "output": None},
        {"instruction": "B", "input": 3, "output": "b"},
    )
    with pytest.raises(InputError) as caught:
        read_outputs(path)
    assert [(p.where, p.message) for p in caught.value.problems] == [
        (f"{path}:2", "instruction must be a text that is not blank, got ' '"),
        (f"{path}:3", "output must be a text, got None"),
        (f"{path}:4", "input must be a text, got 3"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no records in the file"),
        ("[]", "no records in the file"),
        ('[{"instruction": ', "not valid JSON"),
        ('{"instruction": "a", "output": "b"}\n{"in', ":2: not valid JSON"),
        ("[1]", "must be a JSON object"),
    ],
)
def test_an_invalid_file_is_rejected(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_outputs(path)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.json: cannot be read: No such file"):
        read_outputs(tmp_path / "none.json")
