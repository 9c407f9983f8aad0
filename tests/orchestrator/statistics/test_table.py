"""Scores from a CSV file of anyone's."""

from pathlib import Path

import pytest

from orchestrator.statistics.table import plw_of, read_scores
from trainers.foundation.errors import InputError

REFERENCE = Path(__file__).parent / "beta_glmm_simulated.csv"


def written(folder: Path, text: str) -> Path:
    path = folder / "my.csv"
    path.write_text(text)
    return path


def test_a_file_with_common_names_is_read(tmp_path: Path) -> None:
    (first, second) = read_scores(written(tmp_path, (
        "task,group,prompt_loss_weight,seed,value,stderr,n,lr\n"
        "arc,multiple_choice,0,1,0.25,0.02,400,1e-5\n"
        "arc,multiple_choice,0.1,1,0.5,,,1e-5\n"
    )))  # fmt: skip
    assert (first.benchmark, first.group, first.plw, first.score) == (
        "arc",
        "multiple_choice",
        0,
        0.25,
    )
    assert (first.standard_error, first.num_items, first.learning_rate) == (0.02, 400, 1e-5)
    assert (second.standard_error, second.num_items, second.seed) == (None, None, "1")


def test_the_reference_file_of_the_papers_model_is_read() -> None:
    rows = read_scores(REFERENCE)
    assert len(rows) == 390
    assert len({row.trial_key for row in rows}) == 30
    assert rows[1].plw == pytest.approx(5e-4, rel=0.02)


def test_w_p_becomes_the_plw(tmp_path: Path) -> None:
    (row,) = read_scores(written(tmp_path, "benchmark,w_p,score\na,0.5,0.5\n"))
    assert row.plw == pytest.approx(0.1, rel=1e-4)
    assert plw_of(0.652) == pytest.approx(0.242, abs=5e-4)
    assert plw_of(0) == 0


def test_every_bad_line_is_named_with_its_mending(tmp_path: Path) -> None:
    path = written(tmp_path, "benchmark,plw,score\na,zero,0.5\na,0.1,many\nb,,0.2\n")
    with pytest.raises(InputError) as raised:
        read_scores(path)
    assert str(raised.value).splitlines() == [
        f"{path}:2: plw must be a number, got 'zero'; write a plain number",
        f"{path}:3: score must be a number, got 'many'; write a plain number",
        f"{path}:4: needs a plw, or a w_p in [0, 1], got none; write a plain number",
    ]


def test_percentages_and_repeated_scores_are_refused_by_line(tmp_path: Path) -> None:
    path = written(tmp_path, "benchmark,plw,score\na,0,43\na,0,0.5\n")
    with pytest.raises(InputError) as raised:
        read_scores(path)
    assert str(raised.value).splitlines() == [
        f"{path}:2: score must be in [0, 1], got 43; divide percentages by 100",
        f"{path}:3: a second score of a for one trial at PLW 0 (the first: {path}:2); "
        "tell the trials apart in a column `seed` or `trial`",
    ]


def test_unknown_and_missing_columns_are_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        read_scores(written(tmp_path, "benchmark,plv,scores\na,0,0.5\n"))
    text = str(raised.value)
    assert "column `plv` is none that is known; did you mean `plw`?" in text
    assert "did you mean `score`?" in text
    assert "has no column `score`" in text
    with pytest.raises(InputError, match="cannot be read"):
        read_scores(tmp_path / "none.csv")


def test_a_trial_with_two_weights_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "benchmark,plw,score,trial\na,0,0.4,t1\nb,0.1,0.5,t1\n")
    with pytest.raises(InputError, match=r"trial t1 has PLW 0 and 0\.1"):
        read_scores(path)
