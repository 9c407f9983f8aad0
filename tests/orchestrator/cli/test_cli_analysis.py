"""`plw report --scores` and `plw power`, as a person calls them."""

import csv
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli.main import main
from tests.orchestrator.plw import plw, plw_json, refused
from tests.orchestrator.statistics.scores import rows_of

GROUPS = {"multiple_choice": 3, "short_generation": 2}


def scores_file(folder: Path, bend: float) -> Path:
    path = folder / "my.csv"
    columns = ("benchmark", "group", "plw", "seed", "score")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows_of(lambda at: -bend * (at - 0.65) ** 2, groups=GROUPS, trial_sd=0.05):
            writer.writerow([getattr(row, column) for column in columns])
    return path


def printed(*arguments: str) -> str:
    return plw(*arguments).output


def test_a_file_of_scores_gets_the_answer_first(tmp_path: Path) -> None:
    text = printed("report", "--scores", str(scores_file(tmp_path, 1.0)))
    assert text.startswith("Overall: best PLW is about 0.2")
    assert "corrected for having been chosen" in text.splitlines()[0]
    assert "| Multiple choice | 21 | best PLW is about" in text
    assert "on the front" in text
    assert "The paper's model, for comparison" in text


def test_scores_without_an_effect_get_runs_to_try(tmp_path: Path) -> None:
    text = printed("report", "--scores", str(scores_file(tmp_path, 0.0)))
    assert text.startswith("Overall: cannot say: no difference between weights stands out")
    assert "Run these 5 next:\n\n- PLW 0, seed 3: the interval would be about 9" in text
    wide = printed("report", "--scores", str(scores_file(tmp_path, 0.0)), "--margin", "10")
    assert wide.startswith("Overall: no effect")


def test_the_answer_is_written_or_printed_for_programs(tmp_path: Path) -> None:
    path = scores_file(tmp_path, 1.0)
    out = tmp_path / "report.md"
    assert printed("report", "--scores", str(path), "-o", str(out)) == f"wrote {out}\n"
    assert out.read_text().startswith("Overall: best PLW")
    found = plw_json("report", "--scores", str(path))
    assert found["verdicts"][0]["kind"] == "best"
    assert found["verdicts"][0]["best_plw"] == pytest.approx(0.24, rel=0.3)


def test_two_weights_are_told_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("benchmark,plw,score\na,0,0.4\na,1,0.5\n")
    text = printed("report", "--scores", str(path))
    assert text.startswith("Scores: cannot say: a curve needs three weights")
    assert "Run these 5 next:" in text


def test_a_folder_and_scores_are_one_too_many(tmp_path: Path) -> None:
    for arguments in (["report"], ["report", str(tmp_path), "--scores", "my.csv"]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2
        assert "either the FOLDER of a sweep or --scores" in result.output
    assert "my.csv: cannot be read" in refused("report", "--scores", str(tmp_path / "my.csv"))


def test_power_says_seeds_trials_and_the_interval_to_expect() -> None:
    text = printed("power", "--effect", "2", "--trial-sd", "0.7")
    assert text.startswith("3 seeds of 6 weights, 18 trials: an effect of 2 points is seen in 9")
    assert "the best PLW would be known to about" in text
    found = plw_json("power", "--effect", "2", "--trial-sd", "1", "--seeds", "1")
    assert (found["seeds"], found["num_trials"]) == (1, 6)
    assert 0.05 < found["power"] < 0.5


def test_power_refuses_what_makes_no_sense() -> None:
    assert "--plws: weights must be numbers" in refused(
        "power", "--effect", "1", "--trial-sd", "1", "--plws", "0,much,1"
    )
    assert "effect must be over 0 points" in refused("power", "--effect", "0", "--trial-sd", "1")
