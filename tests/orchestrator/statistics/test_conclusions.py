"""The verdict that scores deserve, in words that a reader can act on."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from orchestrator.statistics.conclusions import Answer, Table, answer, answer_all, holm
from orchestrator.statistics.conclusions_markdown import answer_conditions, gain_text, headline
from orchestrator.statistics.table import ScoreRow
from tests.orchestrator.statistics.scores import PLWS, SIX, analysed, grid, rows_at, rows_of, w_p
from trainers.errors import InputError

TWO_GROUPS = {"multiple_choice": (45.0, 50.0, 55.0), "short_generation": (12.0, 20.0)}


def hill(at: float) -> float:
    """3.1 points at 0.242 over 0."""
    return -7.3 * (at - 0.65) ** 2


def flat(_: float) -> float:
    return 0.0


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
        "A parabola in w_p does not fit (p = 0.0002), so only tried weights are compared."
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
    assert narrow.difference_high == pytest.approx(0.643, abs=1e-3)
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
        "This assumes that scores follow a parabola in w_p, which trials without repeated weights "
        "cannot test."
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
    assert found.lead.text == "PLW 0.1 is better than the other weight, by 1.5 points"
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
    assert found.lead.text == (
        "PLW 0 is better than the other weight, by 1.5 points (95% interval 0.8 to 2.2)"
    )


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


def test_several_groups_have_an_overall_verdict_first_and_a_front() -> None:
    found = answer(rows_of(hill, groups=TWO_GROUPS, trial_sd=0.1))
    assert [verdict.group for verdict in found.verdicts] == [
        "overall", "multiple_choice", "short_generation",
    ]  # fmt: skip
    assert [point.plw for point in found.front] == list(PLWS)


def test_the_overall_gain_is_the_mean_of_the_groups_points() -> None:
    """Of the true gains of 3.8, 3.8 and 0 the mean is 2.5, whatever each group's level is."""
    rise = {"chance": lambda at: 3.8 * at, "chrf": lambda at: 3.8 * at, "math": flat}
    rows = rows_of(rise, plws=SIX, groups={"chance": (60.0,), "chrf": (12.0,), "math": (4.0,)},
                   trial_sd=0.1, seed=1)  # fmt: skip
    found = {verdict.group: verdict for verdict in answer(rows).verdicts}
    assert found["overall"].gain == pytest.approx(2 / 3 * 3.8, abs=0.1)
    assert found["chrf"].gain == pytest.approx(3.8, abs=0.2)
    assert found["chance"].gain == pytest.approx(3.8, abs=0.2)
    assert found["math"].kind == "no effect"


def test_a_flat_task_of_10_000_items_weighs_as_much_as_one_of_200() -> None:
    """5.7, 5.7 and 0 points in one group: 3.8, although the flat task has the least error."""
    rng = np.random.default_rng(0)
    rows = []
    for plw in SIX:
        for seed in range(3):
            for name, items, gain in (("a", 200, 5.7), ("b", 200, 5.7), ("large", 10_000, 0.0)):
                share = 0.5 + gain * w_p(plw) / 100
                rows.append(ScoreRow(
                    benchmark=name, group="g", plw=plw, seed=str(seed), num_items=items,
                    score=share + 0.1 * rng.standard_normal() / items,
                    standard_error=(0.25 / items) ** 0.5,
                ))  # fmt: skip
    found = answer(rows).lead
    assert (found.kind, found.best_plw) == ("rises", 1.0)
    assert found.gain == pytest.approx(3.8, abs=0.02)


@pytest.mark.parametrize("at_floor", [0.0, 1.5])
def test_benchmarks_near_the_floor_neither_dominate_nor_suppress(at_floor: float) -> None:
    """Exact match of 0 to 3% on 400 items beside a group that rises by 4 points."""
    rng = np.random.default_rng(1)
    rows = rows_of(lambda at: 4 * at, plws=SIX, groups={"mc": (50.0, 60.0)}, trial_sd=0.2, seed=1)
    rows += [
        ScoreRow(benchmark="exact_match", group="generation", plw=plw, seed=str(seed),
                 score=rng.binomial(400, at_floor / 100) / 400, num_items=400)
        for plw in SIX
        for seed in range(3)
    ]  # fmt: skip
    found = {verdict.group: verdict for verdict in answer(rows).verdicts}
    assert found["overall"].kind == "rises"
    assert found["overall"].gain == pytest.approx(2.0, abs=0.8)
    assert found["mc"].gain == pytest.approx(4.0, abs=0.3)
    assert found["generation"].kind == "cannot say"


def test_the_answer_agrees_with_least_squares_on_mean_points_with_seeds_as_blocks() -> None:
    groups = {"a": (60.0, 70.0, 30.0), "b": (12.0,), "c": (8.0, 40.0)}
    rows = rows_of(hill, plws=SIX, groups=groups, seed_sd=0.5, seed=4)
    found = answer(rows).lead
    keys = [(plw, str(seed)) for plw in SIX for seed in range(3)]
    y = []
    for plw, seed in keys:
        own = [row for row in rows if (row.plw, row.seed) == (plw, seed)]
        each = [np.mean([row.score for row in own if row.group == group]) for group in groups]
        y.append(100 * np.mean(each))
    at = np.array([w_p(plw) for plw, _ in keys])
    seeds = np.array([[seed == str(each) for each in range(3)] for _, seed in keys], dtype=float)
    model = sm.OLS(np.array(y), np.column_stack([at, at**2, seeds])).fit()
    slope, curvature = model.params[:2]
    assert found.method == "curve"
    assert found.best_plw == pytest.approx((-slope / (2 * curvature)) ** (1 / 0.30103), rel=1e-4)
    top = -slope / (2 * curvature)
    assert (found.gain_low + found.gain_high) / 2 == pytest.approx(
        slope * top + curvature * top**2, abs=1e-6
    )


def test_a_trial_that_lacks_a_benchmark_is_not_taken_for_a_better_one() -> None:
    rows = rows_of(hill, groups={"g": (20.0, 50.0, 80.0)}, trial_sd=0.1, seed=1)
    partial = [row for row in rows
               if not (row.plw == 0 and row.seed == "0" and row.benchmark == "g0")]  # fmt: skip
    assert answer(partial).lead.best_plw == pytest.approx(answer(rows).lead.best_plw, rel=0.1)
    assert answer(partial).lead.gain == pytest.approx(answer(rows).lead.gain, abs=0.15)


def test_models_with_other_bests_have_a_verdict_each_and_a_note() -> None:
    low = rows_of(lambda at: -8 * (at - 0.3) ** 2, model="small", groups=TWO_GROUPS, trial_sd=0.1)
    high = rows_of(lambda at: -8 * (at - 0.8) ** 2, model="large", seed=1, groups=TWO_GROUPS,
                   trial_sd=0.1)  # fmt: skip
    found = answer(low + high)
    assert [verdict.name for verdict in found.verdicts] == [
        "overall", "multiple_choice", "short_generation", "overall-large", "overall-small",
    ]  # fmt: skip
    own = {verdict.cell[0]: verdict for verdict in found.verdicts if verdict.cell}
    assert own["small"].best_plw == pytest.approx(0.3**3.3219, rel=0.5)
    assert own["large"].best_plw == pytest.approx(0.8**3.3219, rel=0.3)
    assert any("differ in their curves" in note for note in found.notes)


def test_models_that_differ_in_level_alone_have_one_curve() -> None:
    low = rows_of(lambda at: -8 * (at - 0.6) ** 2, model="small", groups=TWO_GROUPS, trial_sd=0.1)
    high = rows_of(lambda at: 20 - 8 * (at - 0.6) ** 2, model="large", seed=1, groups=TWO_GROUPS,
                   trial_sd=0.1)  # fmt: skip
    found = answer(low + high)
    assert found.lead.num_trials == 42
    assert found.lead.interaction_p_value == pytest.approx(0.5, abs=0.45)
    assert found.lead.best_plw == pytest.approx(0.6**3.3219, rel=0.2)
    assert not any("differ in their curves" in note for note in found.notes)


def test_a_group_that_one_model_lacks_is_judged_from_the_other() -> None:
    both = rows_of(hill, model="small", groups=TWO_GROUPS, seed=1, trial_sd=0.1)
    one = rows_of(hill, model="large", groups={"multiple_choice": (45.0, 50.0, 55.0)})
    found = answer(both + one)
    short = next(each for each in found.verdicts if each.group == "short_generation")
    assert (short.kind, short.num_trials) == ("best", 21)
    assert any("do not count overall" in note for note in found.notes)


def test_one_noisier_weight_makes_no_false_effects() -> None:
    """At 5%, of 150 flat studies with threefold noise at one or both ends: 17 or more in 1 of 1,000
    cases."""
    for noisier in ({0.0: 3.0}, {0.0: 3.0, 1.0: 3.0}):
        claims = 0
        for seed in range(150):
            rows = rows_of(flat, plws=SIX, trial_sd=0.5, seed_sd=0.5, noisier=noisier, seed=seed,
                           groups={"g": (50.0,)})  # fmt: skip
            claims += analysed(rows).p_value < 0.05
        assert claims < 17, noisier


def test_groups_that_no_trial_shares_have_verdicts_of_their_own_and_none_overall() -> None:
    first = rows_of(hill, groups={"a": (50.0,)}, seed=1)
    second = [replace(row, seed=f"1{row.seed}") for row in rows_of(hill, groups={"b": (50.0,)})]
    found = answer(first + second)
    assert [verdict.group for verdict in found.verdicts] == ["overall", "a", "b"]
    assert (found.lead.kind, found.lead.num_trials) == ("cannot say", 0)
    assert found.lead.text == "cannot say: two weights with scores are needed, and there are none"
    assert found.verdicts[1].kind == "best"


def test_a_learning_rate_that_is_swept_too_is_taken_out() -> None:
    slow = rows_of(lambda at: -8 * (at - 0.6) ** 2, learning_rate=1e-5, trial_sd=0.1)
    fast = rows_of(lambda at: 9 - 8 * (at - 0.6) ** 2, learning_rate=1e-4, seed=1, trial_sd=0.1)
    found = answer(slow + fast)
    assert found.lead.kind in ("best", "tied")
    ((low, high),) = found.lead.pieces
    assert low < 0.6**3.3219 < high < 0.35
    assert not any("learning rate" in note for note in found.notes)


def test_a_learning_rate_that_goes_along_with_plw_is_named() -> None:
    rows = [replace(row, learning_rate=1e-5 * 10 ** (2 * row.w_p)) for row in rows_of(hill)]
    assert any("changed along with PLW" in note for note in answer(rows).notes)
    fixed = answer(rows_of(hill, learning_rate=1e-5)).notes
    assert any("the learning rate 1e-05, which is confounded" in note for note in fixed)


def test_scores_near_the_floor_are_noted() -> None:
    note = "all scores are below 0.02: they are near the floor, or were divided by 100 twice"
    rows = [replace(row, score=row.score / 100) for row in rows_of(hill)]
    assert note in answer(rows).notes
    assert note not in answer(rows_of(hill)).notes


def losses(curve: Callable[[float], float] = lambda at: (at - 0.6) ** 2) -> list[ScoreRow]:
    rng = np.random.default_rng(1)
    return [
        ScoreRow(benchmark="loss", group="heldout_loss", plw=plw, seed=str(seed),
                 score=2 + curve(w_p(plw)) + 0.005 * rng.standard_normal())
        for plw in PLWS
        for seed in range(3)
    ]  # fmt: skip


def test_losses_are_in_their_own_unit_and_the_lowest_is_best() -> None:
    found = answer(losses(), shares=False, higher_is_better=False, margin=0.01, unit="nats")
    assert found.unit == "nats"
    assert found.lead.best_plw == pytest.approx(0.6**3.3219, rel=0.2)
    assert found.lead.difference == pytest.approx(0.36, abs=0.03)
    assert found.lead.gain == pytest.approx(0.36, abs=0.03)


def test_shares_of_which_the_lowest_is_best_are_reported_in_points() -> None:
    rows = rows_of(lambda at: 4 * at, seed=1)
    found = answer(rows, higher_is_better=False)
    assert (found.unit, found.lead.kind, found.lead.best_plw) == ("points", "falls", 0.0)
    assert found.lead.difference == pytest.approx(4, abs=0.4)


def test_scores_and_losses_are_one_holm_family() -> None:
    scores = rows_of(lambda at: 2 * at, groups=TWO_GROUPS, seed=1, trial_sd=0.4)
    loss = Table(rows=losses(flat), shares=False, higher_is_better=False, margin=0.01, unit="nats")
    both: list[Answer] = answer_all([Table(rows=scores), loss])
    verdicts = [verdict for found in both for verdict in found.verdicts]
    p_values = [float(verdict.p_value or 0) for verdict in verdicts]
    assert len(p_values) == 4
    order = np.argsort(p_values)
    expected, highest = np.empty(4), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (4 - rank) * p_values[index]))
        expected[index] = highest
    assert [verdict.adjusted_p_value for verdict in verdicts] == pytest.approx(expected.tolist())
    alone = answer(scores)
    assert alone.lead.p_value == pytest.approx(both[0].lead.p_value)
    assert both[0].lead.adjusted_p_value > alone.lead.adjusted_p_value


def test_verdicts_on_which_nothing_can_be_said_do_not_cost_the_others() -> None:
    rows = rows_of(hill, groups={"a": (50.0,)}, seed=1)
    floor = [replace(row, benchmark="f", group="floor", score=0.0) for row in rows]
    found = {verdict.group: verdict for verdict in answer(rows + floor).verdicts}
    assert found["floor"].p_value is None
    # Two p-values are left, overall's and a's, which are alike.
    assert found["a"].adjusted_p_value == pytest.approx(2 * found["a"].p_value)


def test_holms_adjustment() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_seed_levels_are_reported_where_verdicts_compare_within_seeds() -> None:
    found = answer(rows_of(hill, seed_sd=2.0, seed=1, trial_sd=0.1))
    assert found.lead.is_within_seeds
    assert [level.seed for level in found.seed_levels] == ["0", "1", "2"]
    assert sum(level.level for level in found.seed_levels) == pytest.approx(0, abs=1e-9)
    rng = np.random.default_rng(1)
    truth = 2.0 * rng.standard_normal(3)
    assert [level.level for level in found.seed_levels] == pytest.approx(
        truth - truth.mean(), abs=0.15
    )
    assert answer(rows_of(hill, seeds=1)).seed_levels == ()


def test_bad_rows_are_refused_all_at_once() -> None:
    rows = [ScoreRow(benchmark="a", plw=2, score=43.0), ScoreRow(benchmark="a", plw=2, score=0.5)]
    with pytest.raises(InputError) as raised:
        answer(rows)
    text = str(raised.value)
    assert "plw must be in [0, 1], got 2" in text
    assert "score must be in [0, 1], got 43; divide percentages by 100" in text
    assert "a second score of a for one trial" in text
    with pytest.raises(InputError, match="there are no scores"):
        answer([])


def test_a_group_called_overall_beside_others_is_refused() -> None:
    rows = rows_of(hill, groups={"overall": (50.0,), "b": (40.0,)})
    with pytest.raises(InputError, match="overall"):
        answer(rows)
    assert answer(rows_of(hill, groups={"overall": (50.0,)}, seed=1)).lead.kind == "best"
