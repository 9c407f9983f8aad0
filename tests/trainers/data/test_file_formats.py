"""Every file format gives the same records as `datasets`, with the line of each problem."""

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from trainers.data.examples import Example
from trainers.data.readers import iter_examples, read_examples
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError

QUOTED_CSV = (
    'prompt,completion\r\n"What is\n1, 2?",Numbers.\r\n\r\n"Say ""hi"".",hi\u2028there\r\nQ,A\r\n'
)


def problems_of(path: Path, **settings: Any) -> list[str]:
    """Return the problems of a file as lines, with file names without their folder."""
    with pytest.raises(InputError) as caught:
        read_examples(str(path), **settings)
    return str(caught.value).replace(f"{path.parent}/", "").split("\n")


def pairs(examples: list[Example]) -> list[tuple[str, str, str]]:
    return [(example.id, example.prompt, example.completion) for example in examples]


@pytest.mark.parametrize(
    ("field", "value"), [("system", "Be short."), ("weight", 0.5), ("tools", {"name": "f"})]
)
def test_a_field_beside_the_list_of_records_is_not_ignored(
    tmp_path: Path, field: str, value: Any
) -> None:
    path = tmp_path / "data.json"
    records = [{"prompt": "Q", "completion": "A"}]
    path.write_text(json.dumps({"version": 2, field: value, "data": records}))
    assert problems_of(path) == [
        f"data.json: {field} is outside the list of records and would be ignored; write it into the"
        " records, or remove it"
    ]


def test_csv_records_have_the_line_at_which_they_begin(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + QUOTED_CSV.encode())
    assert pairs(read_examples(str(tmp_path / "a.csv"))) == [
        ("a.csv:2", "What is\n1, 2?", "Numbers."),
        ("a.csv:5", 'Say "hi".', "hi\u2028there"),
        ("a.csv:6", "Q", "A"),
    ]


def test_a_tsv_cell_may_contain_commas_and_quoted_tabs(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('prompt\tcompletion\nQ, 1\t"A\tB"\n', encoding="utf-8")
    assert pairs(read_examples(str(tmp_path / "a.tsv"))) == [("a.tsv:2", "Q, 1", "A\tB")]


def test_csv_cells_may_be_json_and_labels(tmp_path: Path) -> None:
    chat = json.dumps([{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}])
    quoted = chat.replace('"', '""')
    text = f'messages,system,label\n"{quoted}",S,True\n"{quoted}",,false\n'
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    [example] = read_examples(str(tmp_path / "a.csv"), drop=["negative"])
    turns = [(message.role, message.content) for message in example.messages]
    assert turns == [("system", "S"), ("user", "Q"), ("assistant", "A")]


def test_a_cell_of_csv_may_be_longer_than_the_limit_of_the_csv_module(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"prompt,completion\nQ,{'a' * 200_000}\n", encoding="utf-8")
    assert len(read_examples(str(tmp_path / "a.csv"))[0].completion) == 200_000


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            'prompt,completion\n"a\nb",A\nQ,A,B\n',
            "a.csv:4: the header has 2 columns, but the record has 3; put a cell that contains"
            ' quotes, separators or line ends in quotes, and double the quotes inside: "say'
            ' ""hi"""',
        ),
        (
            'prompt,completion\nQ,A\n"open,A\n',
            "a.csv:3: not valid: unexpected end of data; put a cell that contains quotes,",
        ),
        ("prompt,prompt\nQ,A\n", "a.csv:1: the header must have different names, got prompt,"
         " prompt; edit the header"),
        ('prompt,completion\n"a\nb",\n', 'a.csv:2: completion must not be empty, got ""; fill it'
         " in, or add empty to data.drop"),
        ("prompt,completion\n", "a.csv: no records in the data"),
    ],
)  # fmt: skip
def test_csv_problems_have_the_line(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    [found] = problems_of(tmp_path / "a.csv")
    assert found.startswith(problem)


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv"])
def test_compressed_files_have_the_same_records_and_lines(
    tmp_path: Path, kind: str, suffix: str
) -> None:
    records = [{"prompt": "é1", "completion": "A"}, {"prompt": "2", "completion": "B"}]
    content = {
        "jsonl": "".join(json.dumps(record) + "\n" for record in records),
        "json": json.dumps(records),
        "csv": "prompt,completion\né1,A\n2,B\n",
        "tsv": "prompt\tcompletion\né1\tA\n2\tB\n",
    }[kind].encode()
    compress = {
        "": bytes,
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".zst": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
    }[suffix]
    path = tmp_path / f"a.{kind}{suffix}"
    path.write_bytes(compress(content))
    places = {"jsonl": (":1", ":2"), "json": ("[0]", "[1]")}.get(kind, (":2", ":3"))
    assert pairs(read_examples(str(path))) == [
        (f"a.{kind}{suffix}{places[0]}", "é1", "A"),
        (f"a.{kind}{suffix}{places[1]}", "2", "B"),
    ]


def test_a_truncated_archive_is_an_error_and_not_a_smaller_data_set(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    line = json.dumps({"prompt": "Q", "completion": "A"}) + "\n"
    path.write_bytes(gzip.compress(line.encode() * 1000)[:-20])
    assert problems_of(path) == [
        "a.jsonl.gz: cannot be read: Truncated compressed stream; copy it again: it is incomplete"
        " or has another format"
    ]


def test_a_file_that_is_not_compressed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_text('{"prompt": "Q", "completion": "A"}\n', encoding="utf-8")
    [problem] = problems_of(tmp_path / "a.jsonl.gz")
    assert problem.startswith("a.jsonl.gz: cannot be read: zlib inflate failed")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz"])
def test_records_equal_those_of_the_datasets_library(tmp_path: Path, name: str) -> None:
    """`datasets` reads the same file with pandas and Arrow, an independent implementation."""
    records = [
        {"prompt": f'Q{number}, "quoted"\nand a second line', "completion": f"Ä\t{number}\u2028"}
        for number in range(25)
    ]
    table = pyarrow.Table.from_pylist(records)
    path = tmp_path / name
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(table, path, row_group_size=7)
    elif name.endswith("sv"):
        table.to_pandas().to_csv(path, index=False, sep="\t" if name == "a.tsv" else ",")
    else:
        lines = "".join(json.dumps(record) + "\n" for record in records).encode()
        path.write_bytes(gzip.compress(lines) if name.endswith("gz") else lines)
    kind = {"a.jsonl": "json", "a.jsonl.gz": "json", "a.parquet": "parquet"}.get(name, "csv")
    options = {"sep": "\t"} if name == "a.tsv" else {}
    oracle = datasets.load_dataset(
        kind, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"), **options
    )
    found = [(example.prompt, example.completion) for example in read_examples(str(path))]
    assert found == [(record["prompt"], record["completion"]) for record in oracle]
    assert found == [(record["prompt"], record["completion"]) for record in records]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("a.jsonl", '{"prompt": "Q", "completion": "A"}\n', "not JSON"),
        ("a.csv", "prompt,completion\nQ,A\n", '"open,'),
    ],
)
def test_examples_are_read_before_the_rest_of_the_file(
    tmp_path: Path, name: str, start: str, end: str, suffix: str
) -> None:
    """So that a file may be larger than memory."""
    path = tmp_path / f"{name}{suffix}"
    content = (start + end).encode()
    path.write_bytes(gzip.compress(content) if suffix else content)
    examples = iter_examples(DataConfig(path=str(path)))
    assert next(examples).prompt == "Q"
    with pytest.raises(InputError, match="not valid"):
        next(examples)
