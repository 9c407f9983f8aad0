"""benchmarks.data: ratios of the two sides, and a small run."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.data import Measured, Side, main, ratios, row, tokens_agree, write_records
from tests.tiny_model import save_tiny_model


def measured(seconds: float, memory: int, num_tokens: int = 9) -> Measured:
    return Measured(seconds=seconds, cpu_seconds=1, peak_memory_bytes=memory, num_tokens=num_tokens)


def rows_of(*runs: tuple[int, Side, list[Measured]]) -> list[dict[str, Any]]:
    return [row(number, side, 1000, found) for number, side, found in runs]


def test_ratios_compare_the_slowest_and_largest_process() -> None:
    rows = rows_of(
        (1, "ours", [measured(10, 300), measured(12, 200)]),
        (1, "datasets", [measured(24, 600)]),
        (2, "ours", [measured(1, 100), measured(2, 100)]),
        (2, "datasets", [measured(8, 400)]),
    )
    assert ratios(rows) == {
        "seconds_ratio_start_1": 0.5,
        "peak_memory_bytes_ratio_start_1": 0.5,
        "seconds_ratio_start_2": 0.25,
        "peak_memory_bytes_ratio_start_2": 0.25,
    }
    assert tokens_agree(rows)


def test_different_numbers_of_tokens_are_found() -> None:
    rows = rows_of((1, "ours", [measured(1, 1, 9)]), (1, "datasets", [measured(1, 1, 8)]))
    assert not tokens_agree(rows)


def test_records_are_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_records(tmp_path / name, 3)
    lines = (tmp_path / "a").read_text().splitlines()
    assert lines == (tmp_path / "b").read_text().splitlines()
    assert [sorted(json.loads(line)) for line in lines] == [["input", "instruction", "output"]] * 3


@pytest.mark.slow
def test_both_sides_prepare_the_same_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny_model(tmp_path)
    capsys.readouterr()  # warnings of imports
    arguments = ["--examples", "200", "--model", str(tmp_path), "--threads", "1", "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["start"], one["side"], one["processes"]) for one in found["rows"]] == [
        *[(1, "ours", 2), (1, "datasets", 1)],
        *[(2, "ours", 2), (2, "datasets", 1)],
    ]
