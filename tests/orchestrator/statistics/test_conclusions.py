"""Verdicts and their texts."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from orchestrator.statistics.conclusions import draw_conclusions
from orchestrator.statistics.conclusions_markdown import gain_text, headline, headline_conditions
from orchestrator.statistics.table import ScoreRow
from tests.orchestrator.statistics.scores import (
    SIX,
    TWO_GROUPS,
    flat,
    grid,
    hill,
    make_rows,
    rows_at,
    w_p,
)


def test_a_clear_hill_names_its_best_plw_with_an_interval_and_the_nearest_tried() -> None:
    found = draw_conclusions(make_rows(hill, trial_sd=0.1, seed=1))
    (verdict,) = found.verdicts
    assert (verdict.kind, verdict.method, verdict.nearest_plw) == ("best", "curve", 0.25)
    assert verdict.best_plw == pytest.approx(0.239, rel=0.15)
    ((low, high),) = verdict.pieces
    assert low < 0.239 < high
    assert verdict.text.startswith("best PLW 0.2")
    assert verdict.text.endswith("nearest tried: 0.25)")
    assert found.next_runs == ()
    assert gain_text(verdict, found.unit) == "3.0 (2.7 to 3.4)"


def test_rising_and_falling_curves_name_the_end_of_the_range() -> None:
    rising = draw_conclusions(make_rows(lambda at: 4 * at, seed=1)).lead
    assert (rising.kind, rising.best_plw, rising.pieces) == ("rises", 1.0, ((1.0, 1.0),))
    assert rising.text == "improves towards PLW 1: best PLW 1; largest difference 3.9 points"
    falling = draw_conclusions(make_rows(lambda at: -4 * at, seed=1))
    assert (falling.lead.kind, falling.lead.best_plw) == ("falls", 0.0)
    assert falling.lead.text == "improves towards PLW 0: best PLW 0; largest difference 4.1 points"
    assert "Gain" not in headline(falling)
    assert gain_text(falling.lead, "points") == "-"


def test_rise_within_an_open_range_says_highest_tried() -> None:
    found = draw_conclusions(make_rows(lambda at: 6 * at, plws=(0, 0.01, 0.05, 0.1), seed=1)).lead
    assert found.text == (
        "improves towards PLW 0.1: best PLW 0.1, the highest tried; largest difference 2.9 points"
    )


def test_a_plateau_is_a_tie() -> None:
    found = draw_conclusions(make_rows(lambda at: 3.0 * (at > 0.3), plws=SIX))
    assert (found.lead.kind, found.lead.method) == ("tied", "means")
    assert found.lead.tied_plws == (0.1, 1.0)
    assert found.lead.text == (
        "tied for best: PLW 0.1 and 1 (no significant difference; best mean: 0.1); PLW 0 and "
        "0.01 are worse"
    )
    assert headline_conditions(found) == [
        "A parabola in w_p may not fit (p < 0.001), so only tried weights are compared."
    ]


@pytest.mark.parametrize(
    ("highest", "text"),
    [
        (3, "tied for best: PLW 0.05, 0.1 and 0.3"),
        (5, "tied for best: the 5 weights from 0.01 to 0.5"),
    ],
)
def test_several_tied_weights_are_listed_or_counted(highest: int, text: str) -> None:
    plws = (0.0, 0.05, 0.1, 0.3, 1.0) if highest == 3 else (0.0, 0.01, 0.05, 0.1, 0.3, 0.5, 1.0)
    noise = [[0.1, -0.1, 0], [0, 0.1, -0.1], [-0.1, 0, 0.1], [0, -0.1, 0.1], [0.1, 0, -0.1],
             [-0.1, 0.1, 0], [0, 0.1, -0.1]]  # fmt: skip
    values = [np.array(own) + 3 * (0 < each <= highest) for each, own in
              zip(range(len(plws)), noise, strict=False)]  # fmt: skip
    found = draw_conclusions(rows_at(grid([own.tolist() for own in values], plws))).lead
    assert found.kind == "tied"
    assert text in found.text


def test_of_several_tied_weights_a_slightly_lower_one_is_neither_tied_nor_worse() -> None:
    found = draw_conclusions(make_rows(lambda at: 3.0 * (at > 0.3), plws=SIX)).lead
    assert found.worse_plws == (0.0, 0.01)
    assert set(SIX) - {*found.tied_plws, *found.worse_plws} == {0.05, 0.3}


def test_without_an_effect_no_weight_is_worse() -> None:
    found = draw_conclusions(make_rows(flat, plws=SIX, trial_sd=1.5)).lead
    assert (found.kind, found.worse_plws) == ("cannot say", ())


def test_data_sets_are_counted_with_weights_and_seeds() -> None:
    rows = [
        replace(row, data_set=name)
        for name in ("short", "long")
        for row in make_rows(hill, trial_sd=0.1, seed=len(name))
    ]
    assert headline(draw_conclusions(rows)).endswith(
        "Based on 42 trials (7 weights, 3 seeds each, 2 data sets)."
    )


def test_peak_with_lack_of_fit_names_the_tried_weight() -> None:
    found = draw_conclusions(make_rows(lambda at: 4.0 * (0.2 < at < 0.3), plws=SIX)).lead
    assert (found.kind, found.best_plw, found.nearest_plw) == ("best", 0.01, 0.01)
    assert found.text == "best PLW 0.01 of the 6 tried"


def test_no_effect_needs_the_whole_interval_within_the_margin() -> None:
    low_noise = make_rows(flat, trial_sd=0.1)
    found = draw_conclusions(low_noise)
    assert found.lead.kind == "no effect"
    assert found.lead.text == (
        "no effect: between PLW 0 and 1, scores differ by at most 0.46 points (95%), less than "
        "the margin of 1"
    )
    assert gain_text(found.lead, "points") == "-"
    assert "Gain" not in headline(found)
    assert draw_conclusions(low_noise, margin=0.3).lead.kind == "cannot say"
    high_noise = draw_conclusions(make_rows(flat, trial_sd=1.5)).lead
    assert high_noise.kind == "cannot say"
    assert high_noise.text == (
        "cannot say: no significant difference between weights (p = 0.22); a difference of up to "
        "5.4 points is not ruled out"
    )


def test_no_effect_also_needs_every_observed_difference_within_the_margin() -> None:
    """A curve that fits may smooth away that two means differ by more than the margin."""
    plws = (0.0, 0.0005, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
    rows = make_rows(flat, plws=plws, trial_sd=0.5, seeds=4, seed=29, groups={"g": (50.0,)})
    means = [100 * np.mean([row.score for row in rows if row.plw == plw]) for plw in plws]
    assert max(means) - min(means) == pytest.approx(0.907, abs=1e-3)
    small_margin, large_margin = (
        draw_conclusions(rows, margin=0.75).lead,
        draw_conclusions(rows, margin=0.95).lead,
    )
    assert (small_margin.method, small_margin.kind) == ("curve", "cannot say")
    assert small_margin.difference_high == pytest.approx(0.907, abs=1e-3)
    assert large_margin.kind == "no effect"


def test_significant_effect_within_the_margin_is_no_effect() -> None:
    found = draw_conclusions(
        make_rows(lambda at: -1.5 * (at - 0.6) ** 2, trial_sd=0.02, seed=1)
    ).lead
    assert found.has_effect
    assert found.kind == "no effect"
    assert not found.claims_effect


def test_valley_is_undecided_between_the_two_ends() -> None:
    found = draw_conclusions(make_rows(lambda at: 8 * (at - 0.5) ** 2)).lead
    assert (found.kind, found.has_effect) == ("cannot say", True)
    assert found.text == (
        "cannot say which PLW is best: PLW has an effect (p < 0.001), but the 95% set of the "
        "best PLW is 0 or 1"
    )


def test_without_repeated_weights_the_parabola_is_stated_as_an_assumption() -> None:
    found = draw_conclusions(make_rows(lambda at: -20 * (at - 0.65) ** 2, seeds=1))
    assert (found.lead.kind, found.lead.method) == ("best", "assumed curve")
    assert found.lead.lack_of_fit_p_value is None
    assert headline_conditions(found) == [
        "Too few weights are repeated to test the parabola and equal noise at all weights; "
        "run a second seed of each."
    ]
    assert any("single seed" in note for note in found.notes)


def test_two_weights_with_three_seeds_equal_the_paired_t_test() -> None:
    rows = make_rows(lambda at: 3 * at, plws=(0.0, 0.1))
    found = draw_conclusions(rows)
    assert (found.lead.kind, found.lead.best_plw, found.lead.is_within_seeds) == (
        "rises",
        0.1,
        True,
    )
    assert found.lead.text == "PLW 0.1 is better than PLW 0 by 1.5 points"
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
    assert "Gain over PLW 0: 1.5 points (95% interval 0.8 to 2.2), corrected" in headline(found)


def test_two_weights_with_a_better_lower_weight_have_an_interval() -> None:
    found = draw_conclusions(make_rows(lambda at: -3 * at, plws=(0.0, 0.1)))
    assert (found.lead.kind, found.lead.best_plw) == ("falls", 0.0)
    assert found.lead.text == (
        "PLW 0 is better than PLW 0.1 by 1.5 points (95% interval 0.8 to 2.2)"
    )


def test_two_equal_weights_are_undecided() -> None:
    found = draw_conclusions(make_rows(flat, plws=(0.0, 0.1), trial_sd=1.0))
    assert found.lead.text == (
        "cannot say: no significant difference between weights (p = 0.86); a difference of up to "
        "1.8 points is not ruled out"
    )
    assert [(run.plw, run.seed) for run in found.next_runs] == [(0.0, 3), (0.1, 3)]


def test_too_few_trials_are_undecided_and_say_what_is_missing() -> None:
    two = draw_conclusions(make_rows(lambda at: 3 * at, plws=(0, 1), seeds=1))
    assert two.lead.text == (
        "cannot say: two weights need 2 residual degrees of freedom to estimate noise; run two "
        "seeds of each"
    )
    three = draw_conclusions(make_rows(lambda at: 3 * at, plws=(0, 0.1, 1), seeds=1))
    assert three.lead.text == (
        "cannot say: no residual degrees of freedom to estimate noise; add a second seed of each "
        "weight"
    )
    assert [(run.plw, run.seed) for run in three.next_runs] == [(0, 1), (0.1, 1), (1, 1)]
    one = draw_conclusions(make_rows(flat, plws=(0.1,), seeds=1))
    assert one.lead.text == "cannot say: at least two weights with scores are needed, got 1"


@pytest.mark.parametrize(
    ("num_weights", "kind"), [(4, "cannot say"), (5, "cannot say"), (6, "best")]
)
def test_one_seed_of_few_weights_makes_no_claim_for_a_smooth_curve(
    num_weights: int, kind: str
) -> None:
    weights = [0.0, 0.01, 0.1, 0.242, 0.5, 1.0][:num_weights]
    points = {
        (plw, "0"): -50 * (w_p(plw) - 0.4) ** 2 + 0.001 * (number % 2)
        for number, plw in enumerate(weights)
    }
    verdict = draw_conclusions(rows_at(points)).lead
    assert verdict.kind == kind
    if kind == "cannot say":
        degrees = {4: "1 residual degree", 5: "2 residual degrees"}[num_weights]
        assert verdict.text == (
            f"cannot say: {degrees} of freedom to estimate noise, 3 needed; add a second seed of "
            "each weight"
        )
        assert (verdict.claims_effect, verdict.p_value, verdict.gain) == (False, None, None)


IDENTICAL_SCORES = (
    "cannot say: repeated trials have identical scores, so noise cannot be estimated; score more "
    "items"
)


@pytest.mark.parametrize("rises", [False, True])
def test_identical_seeds_make_no_claim_and_have_no_prospect(rises: bool) -> None:
    """Six trials on 20 items, where one item is 5 points."""
    right = {0.0: 9, 0.026: 9 + rises, 1.0: 9 + 2 * rises}
    rows = [
        ScoreRow(benchmark="b", plw=plw, seed=str(seed), score=own / 20, num_items=20)
        for plw, own in right.items()
        for seed in range(2)
    ]
    found = draw_conclusions(rows)
    assert (found.lead.kind, found.lead.text, found.lead.has_effect) == (
        "cannot say",
        IDENTICAL_SCORES,
        False,
    )
    assert (found.lead.p_value, found.lead.gain) == (None, None)
    assert found.follow_up is not None
    assert found.follow_up.prospect is None


def test_seeds_identical_up_to_their_level_make_no_claim() -> None:
    values = np.array([0.0, 1, 2, 5])[:, None] + np.array([0.0, 0.3, -0.2])
    assert (
        draw_conclusions(rows_at(grid(values.tolist(), (0.0, 0.01, 0.1, 1.0)))).lead.text
        == IDENTICAL_SCORES
    )
    losses = {key: 2 + own / 7 for key, own in grid(values.tolist(), (0.0, 0.01, 0.1, 1.0)).items()}
    rows = [replace(row, score=losses[row.plw, row.seed]) for row in rows_at(losses, level=0)]
    assert (
        draw_conclusions(rows, shares=False, higher_is_better=False).lead.text == IDENTICAL_SCORES
    )


@pytest.mark.parametrize("groups", [None, TWO_GROUPS])
def test_identical_scores_make_no_claim(groups: dict[str, tuple[float, ...]]) -> None:
    rows = [replace(row, score=0.25) for row in make_rows(flat, groups=groups)]
    assert {verdict.text for verdict in draw_conclusions(rows).verdicts} == {IDENTICAL_SCORES}


@pytest.mark.parametrize(
    ("level", "text"),
    [(0.0, "score 0, so no difference between weights can show; use easier benchmarks"),
     (1.0, "score 100, so no difference between weights can show; use harder benchmarks")],
)  # fmt: skip
def test_scores_at_a_bound_of_the_scale_make_no_claim(level: float, text: str) -> None:
    rows = [replace(row, score=level) for row in make_rows(flat)]
    (verdict, *_) = draw_conclusions(rows).verdicts
    assert (verdict.kind, verdict.has_effect) == ("cannot say", False)
    assert text in verdict.text
