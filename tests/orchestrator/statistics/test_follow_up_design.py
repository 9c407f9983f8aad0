"""What to run next, and what it would show."""

from dataclasses import replace

import pytest

from orchestrator.statistics.conclusions import answer
from orchestrator.statistics.conclusions_markdown import prospect_text
from orchestrator.statistics.follow_up_design import FollowUp
from orchestrator.statistics.table import ScoreRow
from tests.orchestrator.statistics.scores import PLWS, SIX, flat, rows_of


def design_of(rows: list[ScoreRow]) -> FollowUp:
    design = answer(rows).follow_up
    assert design is not None
    return design


def runs_of(rows: list[ScoreRow]) -> list[tuple[float, int]]:
    return [(run.plw, run.seed) for run in design_of(rows).runs]


def quickly(rows: list[ScoreRow]) -> list[ScoreRow]:
    """The rows with scores that all agree, of which nothing is simulated."""
    return [replace(row, score=0.5) for row in rows]


def test_what_is_missing_of_seeds_in_use_comes_first() -> None:
    partial = [row for row in rows_of(flat) if not (row.seed == "2" and row.plw > 0.1)]
    assert runs_of(quickly(partial)) == [(0.25, 2), (0.5, 2), (1.0, 2)]
    assert design_of(quickly(partial)).reason == "what is missing of the seeds in use"


def test_whole_seeds_are_followed_by_one_seed_more_at_every_weight() -> None:
    design = design_of(quickly(rows_of(flat, plws=SIX)))
    assert [(run.plw, run.seed) for run in design.runs] == [(plw, 3) for plw in SIX]
    assert design.reason == "one seed more at every weight"


@pytest.mark.parametrize(
    ("names", "following"),
    [
        (("40", "41", "42"), 43),
        (("7", "3", "5"), 8),
        (("0.0", "1.0", "2.0"), 3),
        (("a", "b", "c"), 0),
        (("--1", "x2", "³"), 0),
        (("-3", "-2", "-1"), 0),
        (("nan", "inf", "4"), 5),
    ],
)
def test_the_seed_numbers_in_use_are_continued(names: tuple[str, ...], following: int) -> None:
    rows = [replace(row, seed=names[int(row.seed)]) for row in quickly(rows_of(flat, plws=SIX))]
    assert {seed for _, seed in runs_of(rows)} == {following}


def test_missing_trials_of_seeds_written_as_fractions_are_named() -> None:
    rows = [replace(row, seed=f"{row.seed}.0") for row in quickly(rows_of(flat, plws=SIX))]
    assert runs_of([row for row in rows if (row.plw, row.seed) != (0.3, "1.0")]) == [(0.3, 1)]


def test_a_single_weight_gets_others_with_the_seed_in_use() -> None:
    rows = [replace(row, seed="5") for row in rows_of(flat, plws=(0.1,), seeds=1)]
    runs = runs_of(rows)
    assert {seed for _, seed in runs} == {5}
    assert 0.1 not in [plw for plw, _ in runs]
    assert {0.0, 1.0} <= {plw for plw, _ in runs}


def test_a_search_of_many_weights_gets_few_of_them_again() -> None:
    plws = [each / 40 for each in range(41)]
    runs = runs_of(quickly(rows_of(flat, plws=plws, seeds=1)))
    assert [seed for _, seed in runs] == [1] * 5
    assert {plw for plw, _ in runs} <= set(plws)
    assert {0.0, 1.0} <= {plw for plw, _ in runs}


def test_the_runs_are_of_every_cell_at_its_middle_learning_rate() -> None:
    rows = quickly(rows_of(flat, plws=SIX, model="small"))
    few = quickly(rows_of(flat, plws=SIX, seeds=1, model="large"))
    rates = (1e-5, 3e-5, 1e-4)
    rows = [replace(row, learning_rate=rates[int(row.seed)]) for row in [*rows, *few]]
    design = design_of(rows)
    assert {(run.cell[0], run.seed, run.learning_rate) for run in design.runs} == {
        ("large", 1, 1e-5),
        ("small", 3, 3e-5),
    }


def test_of_many_cells_the_one_with_most_trials_is_followed_up() -> None:
    rows = [
        row
        for model in "abcde"
        for row in quickly(rows_of(flat, plws=SIX, seeds=3 if model == "c" else 1, model=model))
    ]
    assert {run.cell for run in design_of(rows).runs} == {("c", "", "")}


def test_a_clear_answer_needs_no_more_runs() -> None:
    found = answer(rows_of(lambda at: -8 * (at - 0.6) ** 2, trial_sd=0.1, seed=1))
    assert (found.follow_up, found.next_runs) == (None, ())


def test_the_prospect_is_that_of_the_estimates_with_the_runs_added() -> None:
    """A hill of 4 points under noise of 2: what is in doubt now is likely to be seen then."""
    rows = rows_of(lambda at: -9 * (at - 0.6) ** 2, trial_sd=1.6, seed=3)
    found = answer(rows)
    assert found.lead.kind == "cannot say"
    design = found.follow_up
    assert design is not None
    prospect = design.prospect
    assert prospect is not None
    assert prospect.num_studies == 100
    assert 0.3 < prospect.names <= prospect.detects <= 1
    assert 0 <= prospect.plw_low <= found.lead.nearest_plw <= prospect.plw_high <= 1
    assert prospect_text(design).startswith(
        f"If the effect is as estimated, {prospect.names:.0%} of 100 simulated studies name a "
    )
    assert tuple(run.plw for run in design.runs) == PLWS


def test_nothing_is_promised_where_the_noise_is_not_known() -> None:
    rows = [replace(row, score=0.5 + 0.02 * row.w_p) for row in rows_of(flat, plws=SIX)]
    design = design_of(rows)
    assert design.prospect is None
    assert prospect_text(design) == ""
