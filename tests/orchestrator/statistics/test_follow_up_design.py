"""Trials to run next, and their prospect."""

from dataclasses import replace

import pytest

from orchestrator.statistics.conclusions import draw_conclusions
from orchestrator.statistics.conclusions_markdown import prospect_text
from orchestrator.statistics.follow_up_design import FollowUp
from orchestrator.statistics.table import ScoreRow
from tests.orchestrator.statistics.scores import PLWS, SIX, flat, make_rows


def get_design(rows: list[ScoreRow]) -> FollowUp:
    design = draw_conclusions(rows).follow_up
    assert design is not None
    return design


def get_runs(rows: list[ScoreRow]) -> list[tuple[float, int]]:
    return [(run.plw, run.seed) for run in get_design(rows).runs]


def without_noise(rows: list[ScoreRow]) -> list[ScoreRow]:
    """Return the rows with identical scores, so that nothing is simulated."""
    return [replace(row, score=0.5) for row in rows]


def test_missing_trials_of_existing_seeds_come_first() -> None:
    partial = [row for row in make_rows(flat) if not (row.seed == "2" and row.plw > 0.1)]
    assert get_runs(without_noise(partial)) == [(0.25, 2), (0.5, 2), (1.0, 2)]
    assert get_design(without_noise(partial)).reason == "missing weights of the seeds in use"


def test_complete_seeds_are_followed_by_one_more_seed() -> None:
    design = get_design(without_noise(make_rows(flat, plws=SIX)))
    assert [(run.plw, run.seed) for run in design.runs] == [(plw, 3) for plw in SIX]
    assert design.reason == "one more seed at every weight"


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
def test_seed_numbers_are_continued(names: tuple[str, ...], following: int) -> None:
    rows = [
        replace(row, seed=names[int(row.seed)]) for row in without_noise(make_rows(flat, plws=SIX))
    ]
    assert {seed for _, seed in get_runs(rows)} == {following}


def test_missing_trials_of_seeds_written_as_fractions_are_named() -> None:
    rows = [replace(row, seed=f"{row.seed}.0") for row in without_noise(make_rows(flat, plws=SIX))]
    assert get_runs([row for row in rows if (row.plw, row.seed) != (0.3, "1.0")]) == [(0.3, 1)]


def test_single_weight_gets_more_weights_with_the_same_seed() -> None:
    rows = [replace(row, seed="5") for row in make_rows(flat, plws=(0.1,), seeds=1)]
    runs = get_runs(rows)
    assert {seed for _, seed in runs} == {5}
    assert 0.1 not in [plw for plw, _ in runs]
    assert {0.0, 1.0} <= {plw for plw, _ in runs}


def test_many_weights_are_thinned() -> None:
    plws = [each / 40 for each in range(41)]
    runs = get_runs(without_noise(make_rows(flat, plws=plws, seeds=1)))
    assert [seed for _, seed in runs] == [1] * 5
    assert {plw for plw, _ in runs} <= set(plws)
    assert {0.0, 1.0} <= {plw for plw, _ in runs}


def test_runs_cover_every_cell_at_its_median_learning_rate() -> None:
    rows = without_noise(make_rows(flat, plws=SIX, model="small"))
    few = without_noise(make_rows(flat, plws=SIX, seeds=1, model="large"))
    rates = (1e-5, 3e-5, 1e-4)
    rows = [replace(row, learning_rate=rates[int(row.seed)]) for row in [*rows, *few]]
    design = get_design(rows)
    assert {(run.cell[0], run.seed, run.learning_rate) for run in design.runs} == {
        ("large", 1, 1e-5),
        ("small", 3, 3e-5),
    }


def test_only_the_largest_of_many_cells_is_followed_up() -> None:
    rows = [
        row
        for model in "abcde"
        for row in without_noise(
            make_rows(flat, plws=SIX, seeds=3 if model == "c" else 1, model=model)
        )
    ]
    assert {run.cell for run in get_design(rows).runs} == {("c", "", "")}


def test_conclusive_verdict_has_no_follow_up() -> None:
    found = draw_conclusions(make_rows(lambda at: -8 * (at - 0.6) ** 2, trial_sd=0.1, seed=1))
    assert (found.follow_up, found.next_runs) == (None, ())


def test_prospect_simulates_the_estimates_with_the_added_runs() -> None:
    """A hill of 4 points with noise of sd 2: undecided now, likely detected with more trials."""
    rows = make_rows(lambda at: -9 * (at - 0.6) ** 2, trial_sd=1.6, seed=3)
    found = draw_conclusions(rows)
    assert found.lead.kind == "cannot say"
    design = found.follow_up
    assert design is not None
    prospect = design.prospect
    assert prospect is not None
    assert prospect.num_studies == 100
    assert 0.3 < prospect.names <= prospect.detects <= 1
    assert 0 <= prospect.plw_low <= found.lead.nearest_plw <= prospect.plw_high <= 1
    assert prospect_text(design).startswith(
        f"With these trials, if the effect is as estimated, {prospect.names:.0%} of 100 simulated "
        "studies name a best weight"
    )
    assert tuple(run.plw for run in design.runs) == PLWS


def test_unknown_noise_gives_no_prospect() -> None:
    rows = [replace(row, score=0.5 + 0.02 * row.w_p) for row in make_rows(flat, plws=SIX)]
    design = get_design(rows)
    assert design.prospect is None
    assert prospect_text(design) == ""
