"""benchmarks.analysis: comparison of reports with the truth, limits, and a small run."""

import json
from typing import Any

import pytest

from benchmarks.analysis import Outcome, contains_best, main, measure, outcome_of_report, row_of
from benchmarks.cells import CELLS, Cell, broken_limits
from benchmarks.studies import Design, simulate
from benchmarks.truths import Truth

DESIGN = Design(name="6 x 3")
KEYS = {"truth", "design", "claims", "named", "coverage", "regret_over_1", "gain_reported",
        "gain_true", "gain_coverage", "wrong_worse", "wrong_no_effect"}  # fmt: skip


def linear() -> Truth:
    """Return a truth with 43.14 points at PLW 0 and 46.14 at 1."""
    return simulate("linear", DESIGN, 0).truth


def verdict(**changes: Any) -> dict[str, Any]:
    return {
        "group": "overall",
        "cell": None,
        "kind": "rises",
        "best_plw": 1.0,
        "pieces": [[0.9, 1.0]],
        "gain": 2.9,
        "gain_low": 2.0,
        "gain_high": 3.8,
        "reference_plw": 0.0,
        "worse_plws": [],
    } | changes


def test_a_correct_verdict_counts_as_correct() -> None:
    assert outcome_of_report([verdict()], linear()) == Outcome(
        kind="rises",
        any_claim=True,
        covers_continuum=True,
        covers_tried=True,
        regret=0.0,
        gain=2.9,
        gain_true=pytest.approx(3.0),
        gain_covered=True,
    )


def test_a_wrong_weight_has_regret_and_its_true_gain() -> None:
    outcome = outcome_of_report([verdict(kind="best", best_plw=0.5, pieces=[[0.3, 0.7]])], linear())
    assert not outcome.covers_continuum
    assert outcome.regret == pytest.approx(1.5)
    assert outcome.gain_true == pytest.approx(1.5)
    assert not outcome.gain_covered


def test_no_effect_is_wrong_where_weights_differ_by_more_than_a_point() -> None:
    silent = verdict(kind="no effect", best_plw=None, gain=None, gain_low=None, gain_high=None)
    outcome = outcome_of_report([silent, verdict(group="texts")], linear())
    assert outcome.wrong_no_effect
    assert outcome.any_claim
    assert (outcome.gain, outcome.regret) == (None, None)
    assert not outcome_of_report([silent], simulate("none", DESIGN, 0).truth).wrong_no_effect


def test_calling_the_best_tried_weight_worse_is_wrong() -> None:
    others = verdict(kind="tied", worse_plws=[0.0, 0.01])
    assert not outcome_of_report([others], linear()).wrong_worse
    assert outcome_of_report([verdict(kind="tied", worse_plws=[1.0])], linear()).wrong_worse
    flat = simulate("none", DESIGN, 0).truth
    assert outcome_of_report([others], flat).wrong_worse


def test_only_the_verdict_over_all_cells_counts() -> None:
    of_cell = verdict(kind="cannot say", cell=["model", "", ""])
    assert outcome_of_report([of_cell, verdict()], linear()).kind == "rises"


@pytest.mark.parametrize(
    ("pieces", "best", "is_met"),
    [
        ([(0.0, 0.0)], [(0.0, 0.0)], True),
        ([(0.0, 0.0)], [(1e-6, 1.0)], False),
        ([(0.0, 0.01), (0.5, 1.0)], [(0.6, 0.6)], True),
        ([(0.0, 0.01), (0.5, 1.0)], [(0.05, 0.05)], False),
        # 0.998 is 0.0006 from 1 on the axis of PLW ** 0.30103, 0.99 is 0.003 from it.
        ([(0.5, 0.998)], [(1.0, 1.0)], True),
        ([(0.5, 0.99)], [(1.0, 1.0)], False),
        ([], [(0.0, 1.0)], False),
    ],
)
def test_a_set_contains_a_best_weight_up_to_a_thousandth(
    pieces: list[tuple[float, float]], best: list[tuple[float, float]], is_met: bool
) -> None:
    assert contains_best(pieces, best) is is_met


def test_shares_of_a_row_count_the_right_studies() -> None:
    named = Outcome(kind="best", any_claim=True, covers_tried=True, regret=1.2, gain=2.0,
                    gain_true=1.0, gain_covered=True)  # fmt: skip
    silent = Outcome(kind="cannot say", covers_continuum=True, covers_tried=True)
    row = row_of(Cell(truth="hill", design=DESIGN), [named, silent, silent, Outcome(error="no")])
    assert row["studies"] == 4
    assert row["named"] == 0.25
    assert row["claims"] == pytest.approx(1 / 3)
    assert row["coverage"] == 1
    assert row["coverage_continuum"] == pytest.approx(2 / 3)
    assert row["regret_over_1"] == 1
    assert (row["gain_reported"], row["gain_true"], row["gain_missing"]) == (2, 1, 2)
    assert row["kinds"] == {"best": 1, "cannot say": 2}
    assert row["errors"] == 1
    assert row["failed"] == ["regret_over_1", "gain_reported", "errors"]


def good_row() -> dict[str, Any]:
    return {
        "claims": 0.085,
        "any_claims": 0.085,
        "named": 0.85,
        "coverage": 0.915,
        "regret_over_1": 0.05,
        "gain_reported": 3.3,
        "gain_true": 3.0,
        "gain_coverage": 0.915,
        "wrong_worse": 0.085,
        "wrong_no_effect": 0.05,
        "errors": 0,
    }


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.truth in ("none", "hill")])
def test_figures_at_a_limit_are_within_it(cell: Cell) -> None:
    assert broken_limits(cell, good_row()) == []


@pytest.mark.parametrize(
    ("truth", "changes", "broken"),
    [
        ("none", {"claims": 0.09}, ["claims"]),
        ("none", {"any_claims": 0.09}, ["any_claims"]),
        ("opposite-groups", {"claims": 0.09, "any_claims": 1.0}, ["claims"]),
        ("hill", {"claims": 1.0, "any_claims": 1.0}, []),
        ("hill", {"named": 0.845}, ["named"]),
        ("linear", {"named": 0.8}, []),
        ("linear", {"named": 0.795}, ["named"]),
        ("step", {"named": 0.0, "coverage": 0.91}, ["coverage"]),
        ("hill", {"gain_reported": 3.31}, ["gain_reported"]),
        ("at-0", {"gain_reported": -0.19, "gain_true": 0.0}, []),
        ("at-0", {"gain_reported": -0.21, "gain_true": 0.0}, ["gain_reported"]),
        ("plateau", {"wrong_worse": 0.09}, ["wrong_worse"]),
        ("step", {"wrong_no_effect": 0.055, "regret_over_1": None}, ["wrong_no_effect"]),
    ],
)
def test_figures_beyond_a_limit_break_it(
    truth: str, changes: dict[str, Any], broken: list[str]
) -> None:
    cell = next(cell for cell in CELLS if cell.truth == truth)
    assert broken_limits(cell, good_row() | changes) == broken


def test_cells_with_twice_the_noise_or_eight_verdicts_have_no_limits() -> None:
    without = {(cell.truth, cell.design.name) for cell in CELLS if not cell.has_limits}
    assert without == {
        ("hill", "6 x 3, sd 1"),
        ("linear", "6 x 3, sd 1"),
        ("hill", "6 x 3, eight verdicts"),
        ("linear", "6 x 3, eight verdicts"),
    }
    unlimited = next(cell for cell in CELLS if not cell.has_limits)
    assert broken_limits(unlimited, good_row() | {"coverage": 0.0}) == []


def test_cells_differ_in_their_truth_or_the_name_of_their_design() -> None:
    assert len({(cell.truth, cell.design.name) for cell in CELLS}) == len(CELLS)


def test_a_large_effect_is_named_with_the_right_gain() -> None:
    cell = Cell(truth="hill", design=Design(name="large", span=9.0), min_named=1.0)
    (row,) = measure([cell], 6, 1)
    assert row["named"] == 1
    assert row["claims"] == 1
    assert row["wrong_no_effect"] == 0
    assert row["errors"] == 0
    assert row["gain_reported"] == pytest.approx(row["gain_true"], abs=1)


def test_the_benchmark_prints_rows_of_two_truths(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--studies", "6", "--truths", "step,opposite-groups", "--jobs", "2"]
    assert main([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["truth"] for row in rows] == ["step", "opposite-groups"]
    for row in rows:
        assert set(row) >= KEYS
        assert row["studies"] == 6
        assert row["errors"] == 0
        assert sum(row["kinds"].values()) == 6
    assert rows[0]["named"] == 1
    # The same numbers from one process.
    assert main([*arguments[:4], "--jobs", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == rows


def test_the_benchmark_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--studies", "1", "--truths", "step", "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "regret over 1" in printed
    assert "of 1 cells hold all limits" in printed


def test_unknown_truths_and_zero_studies_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--truths", "hill,hills"]) == 2
    assert "got hills" in capsys.readouterr().err
    assert main(["--studies", "0"]) == 2
