"""JSON Lines files: rows in order, and every problem with its line."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from trainers.foundation.errors import InputError
from trainers.foundation.jsonl import read_jsonl


class Row(BaseModel):
    n: int


def written(folder: Path, text: str) -> Path:
    path = folder / "rows.jsonl"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_are_converted_and_blank_lines_skipped(tmp_path: Path) -> None:
    path = written(tmp_path, '{"n": 1}\n\n{"n": 2}\n')
    assert read_jsonl(path, Row.model_validate) == [Row(n=1), Row(n=2)]


def test_a_line_separator_inside_a_string_does_not_end_the_row(tmp_path: Path) -> None:
    assert read_jsonl(written(tmp_path, '{"t": "a\u2028b"}\n'), dict) == [{"t": "a\u2028b"}]


def test_all_bad_lines_are_reported_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, '{"n": 1}\n{"n":\n{"n": "x"}\n')
    with pytest.raises(InputError) as caught:
        read_jsonl(path, Row.model_validate, fix="write {}")
    first, second = caught.value.problems
    assert str(first) == f"{path}:2: not valid JSON: Expecting value at column 6; write {{}}"
    assert second.where == f"{path}:3"
    assert "n" in second.message
