"""Tests of `plw report --scores` and `plw power`."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli.main import main
from tests.orchestrator.plw import plw, plw_json, refused
from tests.orchestrator.report_page import Page
from tests.orchestrator.statistics.scores import make_rows

GROUPS = {"multiple_choice": (45.0, 50.0, 55.0), "short_generation": (45.0, 50.0)}


def scores_file(
    folder: Path, bend: float, transform: Callable[[float], float] = lambda share: share
) -> Path:
    path = folder / "my.csv"
    columns = ("benchmark", "group", "plw", "seed", "score")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in make_rows(lambda at: -25 * bend * (at - 0.65) ** 2, groups=GROUPS, trial_sd=1.2):
            score = transform(row.score)
            writer.writerow([row.benchmark, row.group, row.plw, row.seed, score])
    return path


def printed(*arguments: str) -> str:
    return plw(*arguments).output


def test_the_report_of_a_score_file_begins_with_the_answer(tmp_path: Path) -> None:
    text = printed("report", "--scores", str(scores_file(tmp_path, 1.0)))
    assert text.startswith("Overall: best PLW 0.2")
    assert "corrected for selection" in text.splitlines()[0]
    assert "| Multiple choice | 21 | best PLW 0." in text
    assert "on the front" in text


def test_scores_without_an_effect_get_suggested_runs(tmp_path: Path) -> None:
    text = printed("report", "--scores", str(scores_file(tmp_path, 0.0)))
    assert text.startswith("Overall: cannot say: no significant difference between weights")
    assert "- PLW 0, seed 3\n" in text
    wide = printed("report", "--scores", str(scores_file(tmp_path, 0.0)), "--margin", "10")
    assert wide.startswith("Overall: no effect")


def test_the_answer_is_written_to_a_file_or_printed_as_json(tmp_path: Path) -> None:
    path = scores_file(tmp_path, 1.0)
    out = tmp_path / "report.md"
    assert printed("report", "--scores", str(path), "-o", str(out)) == f"wrote {out}\n"
    assert out.read_text().startswith("Overall: best PLW")
    found = plw_json("report", "--scores", str(path))
    assert found["verdicts"][0]["kind"] == "best"
    assert found["verdicts"][0]["best_plw"] == pytest.approx(0.24, rel=0.3)


def test_the_page_is_written_with_or_without_markdown(tmp_path: Path) -> None:
    path = scores_file(tmp_path, 1.0)
    html, markdown = tmp_path / "new" / "my.html", tmp_path / "my.md"
    given = ("report", "--scores", str(path), "--html", str(html))
    assert printed(*given) == f"wrote {html}\n"
    page = Page(html)
    assert printed(*given, "-o", str(markdown)) == f"wrote {markdown} and {html}\n"
    assert markdown.read_text().splitlines()[0] == page.ids["headline"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["my.csv", "my.md", "new"]
    found = plw_json(*given, "-o", str(markdown))
    assert [row[1] for row in page.tables["verdicts"][1:]] == [
        verdict["text"] for verdict in found["verdicts"]
    ]


def test_invalid_output_files_are_rejected_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "none.csv"
    message = refused("report", "--scores", path, "--html", tmp_path)
    assert (
        message
        == f"error: --html: {tmp_path} is a folder; give a file, such as {tmp_path}/report.html"
    )
    (tmp_path / "file").touch()
    message = refused("report", "--scores", path, "-o", tmp_path / "file" / "my.md")
    assert "--output: must be a folder" in message
    same = tmp_path / "my.html"
    message = refused("report", "--scores", path, "--html", same, "-o", same)
    assert f"--output and --html are the same file, {same}" in message


def test_losses_are_analysed_in_their_unit_with_lower_being_better(tmp_path: Path) -> None:
    path = scores_file(tmp_path, 1.0, lambda share: 3 - share)
    assert "use --lower-is-better" in refused("report", "--scores", str(path))
    given = ("report", "--scores", str(path), "--lower-is-better")
    found = plw_json(*given, "--unit", "nats per token")
    assert found["unit"] == "nats per token"
    assert found["verdicts"][0]["kind"] == "best"
    assert found["verdicts"][0]["best_plw"] == pytest.approx(0.24, rel=0.3)
    # The truth, expit(0.2 or so) less expit(0.2 - 0.65^2), is 0.1; in points it would be 10.
    assert found["verdicts"][0]["gain"] == pytest.approx(0.1, rel=0.2)
    assert "the margin is 0.025, 1% of the median loss; change it with --margin" in found["notes"]
    wide = plw_json(*given, "--margin", "0.3")
    assert wide["unit"] == "units"
    assert wide["verdicts"][0]["kind"] == "no effect"
    assert not any("the margin is" in note for note in wide["notes"])
    assert "The paper's model" not in printed(*given)


def test_tiny_scores_cause_one_warning_and_a_note(tmp_path: Path) -> None:
    path = scores_file(tmp_path, 1.0, lambda share: share / 100)
    result = plw("report", "--scores", path, "--html", tmp_path / "my.html")
    warning = "all scores are below 0.02"
    assert result.stderr.count(f"warning: {warning}") == 1
    assert warning in Page(tmp_path / "my.html").ids["notes"]
    assert any(warning in note for note in plw_json("report", "--scores", path)["notes"])
    fine = plw("report", "--scores", scores_file(tmp_path, 1.0))
    assert fine.stderr == ""
    losses = scores_file(tmp_path, 1.0, lambda share: share / 100)
    assert plw("report", "--scores", losses, "--lower-is-better").stderr == ""


def test_options_of_scores_require_scores(tmp_path: Path) -> None:
    cases = {
        (
            "--margin",
            "2",
            "--html",
            "my.html",
            str(tmp_path),
        ): "--margin, --html: only with --scores",
        ("--lower-is-better", str(tmp_path)): "--lower-is-better: only with --scores",
        ("--scores", "my.csv", "--unit", "nats"): "--unit: only with --lower-is-better",
        ("--scores", "my.csv", "--lower-is-better", "--unit", "points"): "points are for shares",
    }
    for arguments, message in cases.items():
        assert message in refused("report", *arguments)


def test_two_trials_get_suggested_runs(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("benchmark,plw,score\na,0,0.4\na,1,0.5\n")
    assert printed("report", "--scores", str(path)).startswith("Scores: cannot say: ")
    found = plw_json("report", "--scores", str(path))
    assert found["verdicts"][0]["kind"] == "cannot say"
    assert len(found["next_runs"]) > 0


def test_a_report_is_of_a_sweep_or_of_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "runs: no sweep in this folder" in refused("report")
    both = CliRunner().invoke(main, ["report", str(tmp_path), "--scores", "my.csv"])
    assert both.exit_code == 2
    assert "give either SWEEP or --scores FILE.csv" in both.output
    assert "my.csv: cannot be read" in refused("report", "--scores", str(tmp_path / "my.csv"))


def test_power_prints_seeds_trials_and_the_share_of_studies() -> None:
    text = printed("power", "--effect", "2", "--trial-sd", "0.7")
    assert text.startswith("4 seeds of 6 weights, 24 trials; of 400 simulated studies")
    found = plw_json("power", "--effect", "2", "--trial-sd", "1", "--seeds", "1")
    assert (found["seeds"], found["num_trials"]) == (1, 6)
    assert 0.05 < found["power"] < 0.5


def test_power_rejects_invalid_options() -> None:
    assert "--plws: weights must be numbers" in refused(
        "power", "--effect", "1", "--trial-sd", "1", "--plws", "0,much,1"
    )
    assert "effect must be above 0 points" in refused("power", "--effect", "0", "--trial-sd", "1")
