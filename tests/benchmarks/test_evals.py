import json
from pathlib import Path

import pytest

from benchmarks.evals import SideResult, differences, main, row, summary
from tests.evals.benchmark_files import write_data_root
from tests.tiny_model import save_tiny_model


def taken(
    seconds: float, score: float = 0.5, likelihood: float = -1.0, text: str = "a"
) -> SideResult:
    return SideResult(
        startup_s=2.0,
        seconds=seconds,
        cpu_s=seconds,
        scores={"piqa.acc,none": score},
        answers={"piqa": [[likelihood, -3.0]], "wmt14-en-fr": [[text]]},
    )


def test_a_row_has_ratios_within_rounds_and_differences() -> None:
    found = row("multiple_choice", [taken(2), taken(3)], [taken(4, 0.25, -1.5, "b"), taken(30)])
    assert found["ratio"] == pytest.approx(0.3)
    assert (found["ratio_min"], found["ratio_max"]) == (0.1, 0.5)
    assert found["largest_score_difference"] == 0.25
    assert found["largest_log_likelihood_difference"] == 0.5
    assert (found["num_other_outputs"], found["num_outputs"]) == (1, 1)


def test_equal_answers_do_not_differ() -> None:
    assert differences(taken(1).answers, taken(2).answers) == (0.0, 1, 0)


def test_a_group_that_was_not_measured_has_no_ratio() -> None:
    found = summary([row("multiple_choice", [taken(1)], [taken(2)])])
    assert found["multiple_choice_ratio"] == 0.5
    assert found["generation_ratio"] is None
    assert found["largest_score_difference"] == 0


def test_a_missing_file_is_reported_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data-root", str(tmp_path)]) == 2
    assert "arc_challenge needs arc_challenge/test.jsonl" in capsys.readouterr().err


@pytest.mark.slow
def test_both_sides_give_the_same_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny_model(tmp_path / "model")
    root = write_data_root(tmp_path / "data")
    capsys.readouterr()  # DeepSpeed prints a line when saving a model imports it.
    code = main(
        ["--model", str(model), "--data-root", str(root), "--limit", "2", "--threads", "1",
         "--groups", "multiple_choice", "--json"]
    )  # fmt: skip
    assert code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["largest_score_difference"] < 1e-3
    assert found["multiple_choice_ratio"] > 0
