"""benchmarks.train: rows from measurements. Runs without TRL."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.train import (
    LOSS_TOLERANCE,
    MatmulReference,
    Measured,
    main,
    row,
    table,
    write_examples,
)
from trainers.foundation.errors import InputError

# A step is 100 tokens and 6e9 FLOP on a machine that could do 60e9 in a second.
REFERENCE = MatmulReference(
    matmul_flops_per_s=60e9,
    flops_per_step=6e9,
    num_examples=4,
    tokens_per_step=100,
    completion_tokens_per_step=10,
)


def measured(seconds_per_step: float, gigabytes: int, losses: tuple[float, ...]) -> Measured:
    return Measured(
        # The first step takes long.
        step_ends_s=[50 + seconds_per_step * step for step in range(len(losses))],
        losses=list(losses),
        peak_memory_bytes=gigabytes * 10**9,
    )


def test_the_first_step_is_not_timed() -> None:
    run = measured(0.5, 1, (3.0, 2.0, 1.0))
    assert run.tokens_per_s(100) == 200.0


def test_a_row_is_the_median_of_each_rounds_ratio() -> None:
    losses = (3.0, 2.0)
    ours = [measured(0.5, 2, losses), measured(0.25, 2, losses), measured(1.0, 2, losses)]
    trl = [measured(1.0, 4, losses), measured(1.0, 5, losses), measured(1.0, 8, losses)]
    result = row("short", "packed", ours, trl, REFERENCE)
    assert (result["data"], result["packing"], result["rounds"]) == ("short", "packed", 3)
    assert result["tokens_per_example"] == 25
    assert result["tokens_per_s_ratio"] == 2.0
    assert (result["tokens_per_s_ratio_min"], result["tokens_per_s_ratio_max"]) == (1.0, 4.0)
    assert result["peak_memory_ratio"] == 0.4
    # 200 tokens per second are 12e9 FLOP per second, of 60e9.
    assert result["share_of_matmul_peak"] == pytest.approx(0.2)
    assert result["trl_share_of_matmul_peak"] == pytest.approx(0.1)


@pytest.mark.parametrize(("factor", "agree"), [(0.9, True), (1.1, False)])
def test_losses_agree_within_the_tolerance(factor: float, agree: bool) -> None:
    ours = measured(1.0, 1, (3.0, 2.0 * (1 + factor * LOSS_TOLERANCE)))
    result = row("long", "padded", [ours], [measured(1.0, 1, (3.0, 2.0))], REFERENCE)
    assert result["losses_agree"] is agree
    assert result["loss_difference"] == pytest.approx(factor * LOSS_TOLERANCE)


def test_the_least_favourable_row_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    slow, fast = measured(1.0, 2, (3.0, 2.0)), measured(0.5, 2, (3.0, 2.0))
    rows = [
        row("fast", "padded", [fast], [slow], REFERENCE),
        row("slow", "packed", [slow], [fast], REFERENCE),
    ]
    Console(width=110).print(table(rows, "title"))
    shown = capsys.readouterr().out
    assert shown.index("slow") < shown.index("fast")


def test_one_more_example_is_written_for_the_held_out_set(tmp_path: Path) -> None:
    path = tmp_path / "written.jsonl"
    write_examples("demo:python-docs-short", 5, path)
    pairs = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(pairs) == 6
    write_examples("demo:python-docs-short", 5, path, invert=True)
    inverted = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(p["prompt"], p["completion"]) for p in pairs] == [
        (p["completion"], p["prompt"]) for p in inverted
    ]
    with pytest.raises(InputError, match="set --examples to at most 5"):
        write_examples(str(path), 6, tmp_path / "more.jsonl")


def test_help_works_without_trl_and_a_run_reports_that_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert main([]) == 2
    assert "TRL is not installed: run" in capsys.readouterr().err


def test_the_parent_process_imports_no_torch() -> None:
    code = (
        "import sys, benchmarks.train; print({'torch', 'transformers', 'trl'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
