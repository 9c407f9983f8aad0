"""The verdict that scores deserve, in words that a reader can act on."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from orchestrator.statistics.conclusions import answer
from orchestrator.statistics.conclusions_markdown import answer_conditions, gain_text, headline
from orchestrator.statistics.table import ScoreRow
from tests.orchestrator.statistics.scores import (
    SIX,
    TWO_GROUPS,
    flat,
    grid,
    hill,
    rows_at,
    rows_of,
    w_p,
)


def test_a_clear_hill_names_its_best_plw_with_an_interval_and_the_nearest_tried() -> None:
    found = answer(rows_of(hill, trial_sd=0.1, seed=1))
    (verdict,) = found.verdicts
    assert (verdict.kind, verdict.method, verdict.nearest_plw) == ("best", "curve", 0.25)
    assert verdict.best_plw == pytest.approx(0.239, rel=0.15)
    ((low, high),) = verdict.pieces
    assert low < 0.239 < high
    assert verdict.text.startswith("best PLW is about 0.2")
    assert verdict.text.endswith("nearest tried: 0.25)")
    assert found.next_runs == ()
    assert gain_text(verdict, found.unit) == "3.0 (2.7 to 3.4)"


def test_a_rise_and_a_fall_name_their_end() -> None:
    rising = answer(rows_of(lambda at: 4 * at, seed=1)).lead
    assert (rising.kind, rising.best_plw, rising.pieces) == ("rises", 1.0, ((1.0, 1.0),))
    assert rising.text == "rises towards 1: best PLW is 1; 3.9 points over the range"
    falling = answer(rows_of(lambda at: -4 * at, seed=1))
    assert (falling.lead.kind, falling.lead.best_plw) == ("falls", 0.0)
    assert falling.lead.text == "falls from 0: best PLW is 0; 4.1 points over the range"
    assert "gains" not in headline(falling)
    assert gain_text(falling.lead, "points") == "-"


def test_a_rise_that_stops_short_of_1_says_that_more_was_not_tried() -> None:
    found = answer(rows_of(lambda at: 6 * at, plws=(0, 0.01, 0.05, 0.1), seed=1)).lead
    assert found.text == (
        "rises towards 0.1: the highest tried; best PLW is 0.1; 2.9 points over the range"
    )


def test_a_plateau_is_a_tie() -> None:
    found = answer(rows_of(lambda at: 3.0 * (at > 0.3), plws=SIX))
    assert (found.lead.kind, found.lead.method) == ("tied", "means")
    assert found.lead.tied_plws == (0.1, 1.0)
    assert found.lead.text == (
        "tied: no difference is shown between PLW 0.1 and 1, the best of those tried "
        "(highest mean: 0.1)"
    )
    assert answer_conditions(found) == [
        "A parabola in w_p may not fit (p = 0.0002), so only tried weights are compared."
    ]


@pytest.mark.parametrize(
    ("highest", "text"),
    [
        (3, "no difference is shown between PLW 0.05, 0.1 and 0.3"),
        (5, "no difference is shown between the 5 weights 0.01 to 0.5"),
    ],
)
def test_several_tied_weights_are_listed_or_counted(highest: int, text: str) -> None:
    plws = (0.0, 0.05, 0.1, 0.3, 1.0) if highest == 3 else (0.0, 0.01, 0.05, 0.1, 0.3, 0.5, 1.0)
    noise = [[0.1, -0.1, 0], [0, 0.1, -0.1], [-0.1, 0, 0.1], [0, -0.1, 0.1], [0.1, 0, -0.1],
             [-0.1, 0.1, 0], [0, 0.1, -0.1]]  # fmt: skip
    values = [np.array(own) + 3 * (0 < each <= highest) for each, own in
              zip(range(len(plws)), noise, strict=False)]  # fmt: skip
    found = answer(rows_at(grid([own.tolist() for own in values], plws))).lead
    assert found.kind == "tied"
    assert text in found.text


def test_a_peak_that_no_parabola_fits_names_the_tried_weight() -> None:
    found = answer(rows_of(lambda at: 4.0 * (0.2 < at < 0.3), plws=SIX)).lead
    assert (found.kind, found.best_plw, found.nearest_plw) == ("best", 0.01, 0.01)
    assert found.text == "best PLW is 0.01, among the 6 tried"


def test_no_effect_is_said_only_where_the_whole_interval_is_within_the_margin() -> None:
    quiet = rows_of(flat, trial_sd=0.1)
    found = answer(quiet)
    assert found.lead.kind == "no effect"
    assert found.lead.text == (
        "no effect: from PLW 0 to 1 no two weights differ by more than 0.46 points (95%), within "
        "the margin of 1"
    )
    assert gain_text(found.lead, "points") == "-"
    assert "gains" not in headline(found)
    assert answer(quiet, margin=0.3).lead.kind == "cannot say"
    loud = answer(rows_of(flat, trial_sd=1.5)).lead
    assert loud.kind == "cannot say"
    assert loud.text == (
        "cannot say: no difference between weights is shown (p = 0.22), and one of up to 5.4 "
        "points is not ruled out"
    )


def test_no_effect_also_needs_every_observed_difference_within_the_margin() -> None:
    """A curve that fits smooths away that two means lie farther apart than the margin."""
    plws = (0.0, 0.0005, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
    rows = rows_of(flat, plws=plws, trial_sd=0.5, seeds=4, seed=29, groups={"g": (50.0,)})
    means = [100 * np.mean([row.score for row in rows if row.plw == plw]) for plw in plws]
    assert max(means) - min(means) == pytest.approx(0.907, abs=1e-3)
    narrow, wide = answer(rows, margin=0.75).lead, answer(rows, margin=0.95).lead
    assert (narrow.method, narrow.kind) == ("curve", "cannot say")
    assert narrow.difference_high == pytest.approx(0.907, abs=1e-3)
    assert wide.kind == "no effect"


def test_an_effect_within_the_margin_is_none() -> None:
    found = answer(rows_of(lambda at: -1.5 * (at - 0.6) ** 2, trial_sd=0.02, seed=1)).lead
    assert found.has_effect
    assert found.kind == "no effect"
    assert not found.claims_effect


def test_a_valley_cannot_say_which_end() -> None:
    found = answer(rows_of(lambda at: 8 * (at - 0.5) ** 2)).lead
    assert (found.kind, found.has_effect) == ("cannot say", True)
    assert found.text == (
        "cannot say which is best: PLW matters (p = 0.00031), but the best may be 0 or 1"
    )


def test_without_repeated_weights_the_answer_says_that_it_assumes_a_parabola() -> None:
    found = answer(rows_of(lambda at: -20 * (at - 0.65) ** 2, seeds=1))
    assert (found.lead.kind, found.lead.method) == ("best", "assumed curve")
    assert found.lead.lack_of_fit_p_value is None
    assert answer_conditions(found) == [
        "Too few weights are repeated to test the parabola, or whether noise is equal at all "
        "weights; a second seed of each would."
    ]
    assert any("single seed" in note for note in found.notes)


def test_two_weights_with_three_seeds_have_an_answer() -> None:
    rows = rows_of(lambda at: 3 * at, plws=(0.0, 0.1))
    found = answer(rows)
    assert (found.lead.kind, found.lead.best_plw, found.lead.is_within_seeds) == (
        "rises",
        0.1,
        True,
    )
    assert found.lead.text == "PLW 0.1 is better than 0, by 1.5 points"
    points = {
        plw: [
            100 * float(np.mean([r.score for r in rows if (r.plw, r.seed) == (plw, seed)]))
            for seed in "012"
        ]
        for plw in (0.0, 0.1)
    }
    paired = stats.ttest_rel(points[0.1], points[0.0])
    interval = paired.confidence_interval(0.95)
    assert found.lead.p_value == pytest.approx(float(paired.pvalue), rel=1e-6)
    assert (found.lead.gain_low, found.lead.gain_high) == pytest.approx(
        (interval.low, interval.high)
    )
    assert "PLW 0.1 gains 1.5 points over PLW 0 (95% interval 0.8 to 2.2)" in headline(found)


def test_two_weights_of_which_the_lower_one_is_better_have_an_interval_too() -> None:
    found = answer(rows_of(lambda at: -3 * at, plws=(0.0, 0.1)))
    assert (found.lead.kind, found.lead.best_plw) == ("falls", 0.0)
    assert found.lead.text == ("PLW 0 is better than 0.1, by 1.5 points (95% interval 0.8 to 2.2)")


def test_two_weights_that_do_not_differ_cannot_be_told_apart() -> None:
    found = answer(rows_of(flat, plws=(0.0, 0.1), trial_sd=1.0))
    assert found.lead.text == (
        "cannot say: no difference between weights is shown (p = 0.86), and one of up to 1.8 "
        "points is not ruled out"
    )
    assert [(run.plw, run.seed) for run in found.next_runs] == [(0.0, 3), (0.1, 3)]


def test_too_few_trials_cannot_say_and_name_what_is_missing() -> None:
    two = answer(rows_of(lambda at: 3 * at, plws=(0, 1), seeds=1))
    assert two.lead.text == (
        "cannot say: two weights need two degrees of freedom to estimate noise from, such as "
        "two seeds of each"
    )
    three = answer(rows_of(lambda at: 3 * at, plws=(0, 0.1, 1), seeds=1))
    assert three.lead.text == (
        "cannot say: no trial is left over to estimate noise from; a second seed of each weight "
        "would do"
    )
    assert [(run.plw, run.seed) for run in three.next_runs] == [(0, 1), (0.1, 1), (1, 1)]
    one = answer(rows_of(flat, plws=(0.1,), seeds=1))
    assert one.lead.text == "cannot say: two weights with scores are needed, and there is one"


@pytest.mark.parametrize(
    ("num_weights", "kind"), [(4, "cannot say"), (5, "cannot say"), (6, "best")]
)
def test_one_seed_of_few_weights_claims_nothing_however_smooth_its_curve(
    num_weights: int, kind: str
) -> None:
    weights = [0.0, 0.01, 0.1, 0.242, 0.5, 1.0][:num_weights]
    points = {
        (plw, "0"): -50 * (w_p(plw) - 0.4) ** 2 + 0.001 * (number % 2)
        for number, plw in enumerate(weights)
    }
    verdict = answer(rows_at(points)).lead
    assert verdict.kind == kind
    if kind == "cannot say":
        left = {4: "1 trial is", 5: "2 trials are"}[num_weights]
        assert verdict.text == (
            f"cannot say: {left} left over to estimate noise from, and 3 are needed; a second "
            "seed of each weight would do"
        )
        assert (verdict.claims_effect, verdict.p_value, verdict.gain) == (False, None, None)


SAME = (
    "cannot say: repeated trials agree to the last digit, as scores of few items may, so the noise "
    "is not known; score more items"
)


@pytest.mark.parametrize("rises", [False, True])
def test_seeds_that_agree_to_the_last_digit_claim_and_promise_nothing(rises: bool) -> None:
    """Six trials on 20 items, where one item is 5 points."""
    right = {0.0: 9, 0.026: 9 + rises, 1.0: 9 + 2 * rises}
    rows = [
        ScoreRow(benchmark="b", plw=plw, seed=str(seed), score=own / 20, num_items=20)
        for plw, own in right.items()
        for seed in range(2)
    ]
    found = answer(rows)
    assert (found.lead.kind, found.lead.text, found.lead.has_effect) == ("cannot say", SAME, False)
    assert (found.lead.p_value, found.lead.gain) == (None, None)
    assert found.follow_up is not None
    assert found.follow_up.prospect is None


def test_seeds_that_agree_up_to_their_level_claim_nothing_either() -> None:
    values = np.array([0.0, 1, 2, 5])[:, None] + np.array([0.0, 0.3, -0.2])
    assert answer(rows_at(grid(values.tolist(), (0.0, 0.01, 0.1, 1.0)))).lead.text == SAME
    losses = {key: 2 + own / 7 for key, own in grid(values.tolist(), (0.0, 0.01, 0.1, 1.0)).items()}
    rows = [replace(row, score=losses[row.plw, row.seed]) for row in rows_at(losses, level=0)]
    assert answer(rows, shares=False, higher_is_better=False).lead.text == SAME


@pytest.mark.parametrize("groups", [None, TWO_GROUPS])
def test_scores_that_are_all_the_same_show_nothing(groups: dict[str, tuple[float, ...]]) -> None:
    rows = [replace(row, score=0.25) for row in rows_of(flat, groups=groups)]
    assert {verdict.text for verdict in answer(rows).verdicts} == {SAME}


@pytest.mark.parametrize(
    ("level", "text"),
    [(0.0, "score 0, where no weight can be seen to be better; use easier benchmarks"),
     (1.0, "score 100, where no weight can be seen to be worse; use harder benchmarks")],
)  # fmt: skip
def test_scores_at_the_end_of_their_scale_show_nothing(level: float, text: str) -> None:
    rows = [replace(row, score=level) for row in rows_of(flat)]
    (verdict, *_) = answer(rows).verdicts
    assert (verdict.kind, verdict.has_effect) == ("cannot say", False)
    assert text in verdict.text
