"""Reading and checking scores from CSV files."""

from pathlib import Path

import pytest

from orchestrator.foundation.plw_scale import plw_from_w_p
from orchestrator.statistics.table import (
    ScoreRow,
    check_rows,
    read_scores,
    scale_warning,
)
from trainers.foundation.errors import InputError


def write_csv(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "my.csv"
    path.write_text(text, encoding=encoding)
    return path


def read_errors(folder: Path, text: str, *, shares: bool = True) -> list[str]:
    """Return the lines of the error, without the folder."""
    with pytest.raises(InputError) as raised:
        read_scores(write_csv(folder, text), shares=shares)
    return str(raised.value).replace(f"{folder}/", "").splitlines()


def test_common_column_names_are_recognized(tmp_path: Path) -> None:
    (first, second) = read_scores(write_csv(tmp_path, (
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


def test_w_p_is_converted_to_plw(tmp_path: Path) -> None:
    (row,) = read_scores(write_csv(tmp_path, "benchmark,w_p,score\na,0.5,0.5\n"))
    assert row.plw == 0.1
    assert plw_from_w_p(0.652) == pytest.approx(0.242, abs=5e-4)
    assert plw_from_w_p(0) == 0


def test_weights_that_agree_in_six_digits_are_one_weight(tmp_path: Path) -> None:
    rows = read_scores(write_csv(tmp_path, (
        "benchmark,plw,seed,score\n"
        "a,0.1,1,0.5\n"
        "a,0.1000000001,2,0.5\n"
        "a,0.0999999999,3,0.5\n"
        "a,0.100001,4,0.5\n"
    )))  # fmt: skip
    assert [row.plw for row in rows] == [0.1, 0.1, 0.1, 0.100001]
    assert len({row.w_p for row in rows}) == 2


def test_equal_weights_in_two_spellings_are_one_trial(tmp_path: Path) -> None:
    (line,) = read_errors(tmp_path, "benchmark,plw,score\na,0.1,0.5\na,0.1000000001,0.6\n")
    assert line.startswith("my.csv:3: second score of a for one trial at PLW 0.1")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_and_byte_order_marks_are_detected(
    tmp_path: Path, separator: str, encoding: str
) -> None:
    lines = ["Task,Prompt loss weight,Score", "é,0,0.4", "", ",,", "  é , 1 ,0.5"]
    text = "\r\n".join(lines).replace(",", separator)
    first, second = read_scores(write_csv(tmp_path, text, encoding))
    assert (first.benchmark, first.plw, first.score) == ("é", 0, 0.4)
    assert (second.benchmark, second.plw, second.score) == ("é", 1, 0.5)


def test_quoted_fields_may_contain_separators_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path, '"benchmark","plw","score"\n"a, ""b""\nc","0","0.4"\n"a;\tb", "1","0.5"\n'
    )
    assert [row.benchmark for row in read_scores(path)] == ['a, "b"\nc', "a;\tb"]


def test_decimal_commas_are_read_unless_commas_separate_fields(tmp_path: Path) -> None:
    text = "benchmark;plw;score;n\na;0;0,43;400\na;0,1;0,5;400\n"
    assert [
        (row.plw, row.score, row.num_items) for row in read_scores(write_csv(tmp_path, text))
    ] == [
        (0.0, 0.43, 400),
        (0.1, 0.5, 400),
    ]


def test_mixed_decimal_separators_are_rejected(tmp_path: Path) -> None:
    assert read_errors(tmp_path, "benchmark;plw;score;n\na;0;0,43;100\na;1;0,5;1.000\n") == [
        "my.csv:2: decimal comma here, but decimal point on line 3; use one decimal separator in "
        "all numbers, and no thousands separator"
    ]
    assert read_errors(tmp_path, 'benchmark,plw,score\na,0,"0,43"\na,0,0,43\n') == [
        "my.csv:2: score must be a number, got '0,43'; use a decimal point",
        "my.csv:3: line has 4 fields, but the header has 3; give every line as many fields as the "
        "header; quote fields that contain commas, and use a decimal point",
    ]


def test_ragged_line_is_reported_with_its_line_number(tmp_path: Path) -> None:
    text = 'benchmark;plw;score\n\n"two\nlines";0;0.4\na;0.1\n'
    assert read_errors(tmp_path, text) == [
        "my.csv:5: line has 2 fields, but the header has 3; give every line as many fields as the "
        "header"
    ]


def test_unclosed_quote_is_reported_with_its_line_number(tmp_path: Path) -> None:
    text = 'benchmark,plw,score\na,zero,0.4\n"a,0.1,0.5\na,1,0.5\n'
    assert read_errors(tmp_path, text) == [
        "my.csv:2: plw must be a number, got 'zero'; write a number",
        "my.csv:3: cannot be split into fields: unexpected end of data; close the quotes on this "
        'line; write a quote inside a field as ""',
    ]


def test_every_bad_line_is_reported_with_a_fix(tmp_path: Path) -> None:
    text = (
        "benchmark,w_p,plw,score,n\na,,zero,0.5,1\na,,0.1,many,1\nb,,,0.2,1\nb,2,,,1.5\n,,1,nan,1\n"
    )
    assert read_errors(tmp_path, text) == [
        "my.csv:2: plw must be a number, got 'zero'; write a number",
        "my.csv:3: score must be a number, got 'many'; write a number",
        "my.csv:4: missing plw; give the prompt loss weight, from 0 to 1",
        "my.csv:5: w_p must be in [0, 1], got 2; give PLW ** 0.30103",
        "my.csv:5: missing score; remove lines without a score",
        "my.csv:5: num_items must be an integer, got 1.5; give a count",
        "my.csv:6: score must be a finite number, got 'nan'; leave it empty if unknown",
        "my.csv:6: missing benchmark; remove lines without a benchmark",
    ]


def test_at_most_ten_problems_are_shown(tmp_path: Path) -> None:
    text = "benchmark,plw,score\n" + "a,zero,0.5\n" * 30
    lines = read_errors(tmp_path, text)
    assert len(lines) == 10
    assert lines[-1] == "and 21 more problems"


def test_plw_and_w_p_must_agree(tmp_path: Path) -> None:
    header = "benchmark,plw,w_p,score\n"
    same = "a,0,0,0.5\na,0.1,0.5,0.5\na,0.25,0.659,0.5\na,1,1,0.5\n"
    assert [row.plw for row in read_scores(write_csv(tmp_path, header + same))] == [0, 0.1, 0.25, 1]
    one = header + "a,0.05,,0.5\na,,0.5,0.5\n"
    assert [row.plw for row in read_scores(write_csv(tmp_path, one))] == [0.05, 0.1]
    assert read_errors(tmp_path, header + "a,0.1,0.1,0.5\na,0.1,0.502,0.5\n") == [
        "my.csv:2: plw 0.1 and w_p 0.1 contradict each other: PLW 0.1 is w_p 0.5; correct one of "
        "them, or remove the column `w_p`",
        "my.csv:3: plw 0.1 and w_p 0.502 contradict each other: PLW 0.1 is w_p 0.5; correct one "
        "of them, or remove the column `w_p`",
    ]


def test_column_named_set_is_rejected(tmp_path: Path) -> None:
    assert read_errors(tmp_path, "benchmark,set,plw,score\na,test,0,0.5\n") == [
        "my.csv:1: column `set` is ambiguous: seed, split or data set; rename it `seed`, "
        "`data_set` or `condition`, or remove it"
    ]


def test_duplicate_columns_are_rejected(tmp_path: Path) -> None:
    assert read_errors(tmp_path, "task,metric,plw,score,score,value\n") == [
        "my.csv:1: columns `task` and `metric` both mean benchmark; keep one of them",
        "my.csv:1: columns `score` and `score` and `value` all mean score; keep one of them",
    ]


def test_losses_are_reported_as_one_problem(tmp_path: Path) -> None:
    text = "benchmark,plw,score\n" + "".join(f"a,0.{n},2.{n}\n" for n in range(1, 10))
    assert read_errors(tmp_path, text) == [
        "my.csv:2: score must be in [0, 1], got 2.1 (9 of 9 scores, from 2.1 to 2.9); divide "
        "percentages by 100; put losses or errors in a separate file and use --lower-is-better"
    ]
    assert len(read_scores(write_csv(tmp_path, text), shares=False)) == 9
    below = text.replace("2.1", "-2.1")
    assert read_errors(tmp_path, below)[0].endswith(
        "; put losses or errors in a separate file and use --lower-is-better"
    )


def test_percentages_and_repeated_scores_are_rejected(tmp_path: Path) -> None:
    assert read_errors(tmp_path, "benchmark,plw,score\na,0,43\na,0,0.5\n") == [
        "my.csv:2: score must be in [0, 1], got 43; divide percentages by 100; put losses or "
        "errors in a separate file and use --lower-is-better",
        "my.csv:3: second score of a for one trial at PLW 0 (first: my.csv:2); "
        "distinguish the trials in a column `seed` or `trial`",
    ]


def test_unknown_and_missing_columns_are_reported_with_a_fix(tmp_path: Path) -> None:
    assert read_errors(tmp_path, "benchmark,plv,scores\na,0,0.5\n") == [
        "my.csv:1: unknown column `plv`; rename it `plw`",
        "my.csv:1: unknown column `scores`; rename it `score`",
        "my.csv:1: missing column `score`; add it (also known as value, y)",
        "my.csv:1: missing column `plw`; add it (also known as prompt_loss_weight; or w_p, which "
        "is PLW ** 0.30103)",
    ]
    assert read_errors(tmp_path, "benchmark|plw|score\na|0|0.5\n")[0] == (
        "my.csv:1: unknown column `benchmark|plw|score`; separate columns by commas, semicolons "
        "or tabs"
    )


def test_files_without_scores_are_rejected(tmp_path: Path) -> None:
    assert read_errors(tmp_path, "\n\n") == [
        "my.csv: file is empty; write a header line and one row per score"
    ]
    assert read_errors(tmp_path, "benchmark,plw,score\n") == [
        "my.csv: no scores found; give one row per score"
    ]
    with pytest.raises(InputError, match=r"none\.csv: cannot be read: No such file"):
        read_scores(tmp_path / "none.csv")
    path = tmp_path / "latin.csv"
    path.write_bytes("benchmark,plw,score\né,0,0.5\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"byte 20 is not UTF-8; save it in UTF-8"):
        read_scores(path)


def test_trial_with_two_weights_is_reported_once(tmp_path: Path) -> None:
    text = "benchmark,plw,score,trial\na,0,0.4,t1\nb,0.1,0.5,t1\na,0.1,0.5,t1\n"
    assert read_errors(tmp_path, text) == [
        "my.csv:3: trial t1 has PLW 0 and 0.1; give every trial one PLW and a unique name; if the "
        "column numbers repetitions, rename it `seed`"
    ]


def test_group_name_overall_is_reserved(tmp_path: Path) -> None:
    text = "benchmark,group,plw,score\na,one,0,0.4\nmean,overall,0,0.5\n"
    assert read_errors(tmp_path, text) == [
        "my.csv:3: group name `overall` is reserved for the mean of all groups; remove rows of "
        "means, or rename the group"
    ]


def test_rows_from_python_are_checked_like_those_of_a_file() -> None:
    good = ScoreRow(benchmark="a", plw=0.1, score=0.5)
    check_rows([good])
    bad = [good, ScoreRow(benchmark="b", plw=1.5, score=7.0, num_items=0)]
    with pytest.raises(InputError) as raised:
        check_rows(bad)
    assert str(raised.value).splitlines() == [
        "score 2: plw must be in [0, 1], got 1.5; give the prompt loss weight",
        "score 2: num_items must be positive, got 0; leave it empty if unknown",
        "score 2: score must be in [0, 1], got 7; divide percentages by 100; put losses or errors "
        "in a separate file and use --lower-is-better",
    ]
    with pytest.raises(InputError, match="no scores found"):
        check_rows([])


def test_tiny_scores_give_a_warning() -> None:
    tiny = [ScoreRow(benchmark="a", plw=plw, score=0.0043) for plw in (0, 0.1)]
    assert scale_warning(tiny) == (
        "all scores are below 0.02: they are near the floor, or were divided by 100 twice"
    )
    assert scale_warning([*tiny, ScoreRow(benchmark="a", plw=1, score=0.02)]) is None
