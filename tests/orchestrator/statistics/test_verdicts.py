"""The verdict that scores deserve, in words that a reader can act on."""

from dataclasses import replace

import numpy as np
import pytest

from orchestrator.statistics.conclusions import Answer, answer, holm, read_verdicts
from orchestrator.statistics.table import ScoreRow
from tests.orchestrator.statistics.scores import PLWS, rows_of
from trainers.foundation.errors import InputError

TWO_GROUPS = {"multiple_choice": 3, "short_generation": 2}


def said(rows: list[ScoreRow]) -> Answer:
    return answer(rows)


def test_a_clear_hill_names_its_best_plw_with_an_interval() -> None:
    found = said(rows_of(lambda at: -((at - 0.65) ** 2)))
    (verdict,) = found.verdicts
    assert verdict.kind == "best"
    assert verdict.best_plw == pytest.approx(0.239, rel=0.15)
    ((low, high),) = verdict.pieces
    assert low < 0.239 < high
    assert verdict.text.startswith("best PLW is about 0.2")
    assert "95% interval" in verdict.text
    assert found.next_runs == ()


def test_a_rise_and_a_fall_name_their_end() -> None:
    rising = said(rows_of(lambda at: 0.5 * at)).verdicts[0]
    assert (rising.kind, rising.best_plw) == ("rises", 1.0)
    assert rising.text.startswith("rises towards 1: best PLW is 1")
    falling = said(rows_of(lambda at: -0.5 * at)).verdicts[0]
    assert (falling.kind, falling.best_plw) == ("falls", 0.0)
    assert falling.text.startswith("falls from 0: best PLW is 0")
    assert falling.gain == pytest.approx(0, abs=0.2)


def test_a_rise_that_stops_short_of_1_says_that_more_was_not_tried() -> None:
    rising = said(rows_of(lambda at: 0.5 * at, plws=(0, 0.01, 0.05, 0.1))).verdicts[0]
    assert "the highest tried" in rising.text


def test_no_effect_is_said_only_where_the_whole_interval_is_within_the_margin() -> None:
    quiet = rows_of(lambda at: 0.0, trial_sd=0.01)
    assert said(quiet).verdicts[0].kind == "no effect"
    assert "within the margin of 1" in said(quiet).verdicts[0].text
    assert answer(quiet, margin=0.1).verdicts[0].kind == "cannot say"
    loud = said(rows_of(lambda at: 0.0, trial_sd=0.1)).verdicts[0]
    assert loud.kind == "cannot say"
    assert loud.difference_high is not None
    assert loud.difference_high > 1
    assert "is not ruled out" in loud.text


def test_an_effect_within_the_margin_is_none() -> None:
    found = said(rows_of(lambda at: -0.06 * (at - 0.6) ** 2, trial_sd=0.0005)).verdicts[0]
    assert found.has_effect
    assert found.kind == "no effect"
    assert not found.claims_effect


def test_a_valley_cannot_say_which_end() -> None:
    found = said(rows_of(lambda at: (at - 0.5) ** 2)).verdicts[0]
    assert found.kind == "cannot say"
    assert found.has_effect
    assert found.text.endswith("the best may be 0 or 1")


def test_what_cannot_be_said_names_five_runs_that_shrink_the_interval() -> None:
    found = said(rows_of(lambda at: 0.0, trial_sd=0.1, learning_rate=1e-5))
    assert len(found.next_runs) == 5
    keys = {(run.plw, run.seed) for run in found.next_runs}
    assert len(keys) == 5
    assert all(seed >= 3 for plw, seed in keys if plw in PLWS)
    widths = [run.width_left for run in found.next_runs]
    assert widths == sorted(widths, reverse=True)
    assert all(width is not None and 0.5 < width < 1 for width in widths)
    assert {run.learning_rate for run in found.next_runs} == {1e-5}


def test_single_seeds_are_judged_by_their_distance_from_the_curve() -> None:
    found = said(rows_of(lambda at: -2 * (at - 0.65) ** 2, seeds=1))
    assert found.verdicts[0].kind == "best"
    assert any("single seed" in note for note in found.notes)


def test_two_weights_and_three_without_a_second_seed_cannot_say() -> None:
    two = said(rows_of(lambda at: at, plws=(0, 1)))
    assert two.verdicts[0].text == (
        "cannot say: a curve needs three weights with scores, and there are 2"
    )
    assert len(two.next_runs) == 5
    assert any(0 < run.plw < 1 for run in two.next_runs)
    three = said(rows_of(lambda at: at, plws=(0, 0.1, 1), seeds=1))
    assert "a second seed" in three.verdicts[0].text
    one = said(rows_of(lambda at: at, plws=(0.1,), seeds=1))
    assert "and there is one" in one.verdicts[0].text
    assert len(one.next_runs) == 5


def test_seeds_that_agree_to_the_last_digit_show_nothing() -> None:
    rows = [
        ScoreRow(benchmark="b", plw=plw, seed=str(seed), score=right / 48, num_items=48)
        for plw, right in ((0, 9), (0.026, 9), (1, 10))
        for seed in range(2)
    ]
    verdict = said(rows).verdicts[0]
    assert (verdict.kind, verdict.has_effect) == ("cannot say", False)
    assert verdict.text == (
        "cannot say: trials lie on the curve to the last digit, as scores of few items may, which "
        "leaves no noise to judge by; score more items"
    )


def test_several_groups_have_an_overall_verdict_first_and_a_front() -> None:
    found = said(rows_of(lambda at: -((at - 0.65) ** 2), groups=TWO_GROUPS))
    assert [verdict.group for verdict in found.verdicts] == [
        "overall", "multiple_choice", "short_generation",
    ]  # fmt: skip
    assert [point.plw for point in found.front] == list(PLWS)
    on_front = [point.plw for point in found.front if point.is_on_front]
    assert set(on_front) <= {0.1, 0.25, 0.5}
    assert next(point for point in found.front if point.plw == 0).probability == 0


def test_groups_that_pull_apart_have_all_between_their_bests_on_the_front() -> None:
    rows = rows_of(lambda at: -((at - 0.2) ** 2), trial_sd=0.002)
    other = rows_of(lambda at: -((at - 0.9) ** 2), trial_sd=0.002, groups={"short_generation": 2})
    front = {point.plw: point for point in answer(rows + other).front}
    assert [plw for plw, point in front.items() if point.is_on_front] == [
        0.01,
        0.05,
        0.1,
        0.25,
        0.5,
    ]
    assert front[0.1].probability == pytest.approx(1, abs=0.02)
    assert front[0].probability == pytest.approx(0, abs=0.02)


def test_models_with_other_bests_have_a_verdict_each_and_a_note() -> None:
    low = rows_of(lambda at: -((at - 0.3) ** 2), model="small", groups=TWO_GROUPS)
    high = rows_of(lambda at: -((at - 0.8) ** 2), model="large", seed=1, groups=TWO_GROUPS)
    found = answer(low + high)
    own = {verdict.cell[0]: verdict for verdict in found.verdicts if verdict.cell}
    assert own["small"].best_plw == pytest.approx(0.3**3.3219, rel=0.5)
    assert own["large"].best_plw == pytest.approx(0.8**3.3219, rel=0.3)
    assert any("differ in their curves" in note for note in found.notes)


def test_models_that_differ_in_level_alone_have_one_curve() -> None:
    low = rows_of(lambda at: -((at - 0.6) ** 2), model="small", groups=TWO_GROUPS)
    high = rows_of(lambda at: 2 - (at - 0.6) ** 2, model="large", seed=1, groups=TWO_GROUPS)
    found = answer(low + high)
    assert found.verdicts[0].num_trials == 42
    assert found.verdicts[0].interaction_p_value == pytest.approx(0.5, abs=0.49)
    assert found.verdicts[0].best_plw == pytest.approx(0.6**3.3219, rel=0.2)


def test_a_group_that_one_model_lacks_is_judged_from_the_other() -> None:
    both = rows_of(lambda at: -((at - 0.6) ** 2), model="small", groups=TWO_GROUPS)
    one = rows_of(lambda at: -((at - 0.6) ** 2), model="large", groups={"multiple_choice": 3})
    found = answer(both + one)
    short = next(each for each in found.verdicts if each.group == "short_generation")
    assert (short.kind, short.num_trials) == ("best", 21)
    assert any("do not count overall" in note for note in found.notes)


def test_a_learning_rate_that_is_swept_too_is_taken_out() -> None:
    slow = rows_of(lambda at: -((at - 0.6) ** 2), learning_rate=1e-5)
    fast = rows_of(lambda at: 0.5 - (at - 0.6) ** 2, learning_rate=1e-4, seed=1)
    found = answer(slow + fast)
    assert found.verdicts[0].kind == "best"
    ((low, high),) = found.verdicts[0].pieces
    assert low < 0.6**3.3219 < high < 0.35
    assert not any("learning rate" in note for note in found.notes)


def test_a_learning_rate_that_goes_along_with_plw_is_named() -> None:
    rows = [replace(row, learning_rate=1e-5 * 10 ** (2 * row.w_p))
            for row in rows_of(lambda at: -((at - 0.6) ** 2))]  # fmt: skip
    assert any("changed along with PLW" in note for note in answer(rows).notes)
    fixed = answer(rows_of(lambda at: -((at - 0.6) ** 2), learning_rate=1e-5)).notes
    assert any("the learning rate 1e-05, which is confounded" in note for note in fixed)


def test_scores_that_follow_no_quadratic_are_noted() -> None:
    step = answer(rows_of(lambda at: 1.0 if at > 0.45 else 0.0)).notes
    assert any("do not follow a quadratic" in note for note in step)
    hill = answer(rows_of(lambda at: -((at - 0.6) ** 2))).notes
    assert not any("quadratic" in note for note in hill)


def test_losses_are_told_in_their_own_unit_and_the_lowest_is_best() -> None:
    rng = np.random.default_rng(0)
    rows = [ScoreRow(benchmark="loss", plw=plw, seed=str(seed),
                     score=2 + (plw**0.30103 - 0.6) ** 2 + 0.005 * rng.standard_normal())
            for plw in PLWS for seed in range(3)]  # fmt: skip
    found = answer(rows, shares=False, higher_is_better=False, margin=0.01)
    assert found.verdicts[0].best_plw == pytest.approx(0.6**3.3219, rel=0.15)
    assert found.verdicts[0].difference == pytest.approx(0.36, abs=0.03)


def test_scores_of_0_and_1_are_moved_by_half_an_item() -> None:
    rows = rows_of(lambda at: -((at - 0.6) ** 2), num_items=100)
    rows[0] = replace(rows[0], score=0.0)
    assert np.isfinite(answer(rows).verdicts[0].p_value or np.nan)


@pytest.mark.parametrize("level", [0.5, 0.25])
@pytest.mark.parametrize("groups", [{"multiple_choice": 1}, TWO_GROUPS])
def test_scores_that_are_all_the_same_show_no_effect(level: float, groups: dict[str, int]) -> None:
    rows = [replace(row, score=level) for row in rows_of(lambda at: 0.0, groups=groups)]
    (verdict, *_) = answer(rows).verdicts
    assert verdict.kind == "no effect"


@pytest.mark.parametrize(
    ("level", "said"),
    [(0.0, "score 0, where no weight can be seen to be better; take easier benchmarks"),
     (1.0, "score 100, where no weight can be seen to be worse; take harder benchmarks")],
)  # fmt: skip
def test_scores_at_the_end_of_their_scale_show_nothing(level: float, said: str) -> None:
    rows = [replace(row, score=level) for row in rows_of(lambda at: 0.0)]
    (verdict, *_) = answer(rows).verdicts
    assert (verdict.kind, verdict.has_effect) == ("cannot say", False)
    assert said in verdict.text


@pytest.mark.parametrize(
    ("num_weights", "kind"), [(4, "cannot say"), (5, "cannot say"), (6, "best")]
)
def test_one_seed_of_few_weights_claims_nothing_however_smooth_its_curve(
    num_weights: int, kind: str
) -> None:
    weights = [0.0, 0.01, 0.1, 0.242, 0.5, 1.0][:num_weights]
    rows = [
        ScoreRow(
            benchmark="a", group="multiple_choice", plw=plw, seed="0",
            score=0.7 - 0.5 * (plw**0.30103 - 0.4) ** 2 + 1e-5 * (number % 2), num_items=1000,
        )
        for number, plw in enumerate(weights)
    ]  # fmt: skip
    (verdict,) = read_verdicts(rows)
    assert verdict.kind == kind
    if kind == "cannot say":
        left = {4: "1 trial is", 5: "2 trials are"}[num_weights]
        assert verdict.text.startswith(f"cannot say: {left} left beside the curve to judge noise")
        assert (verdict.claims_effect, verdict.p_value, verdict.gain) == (False, None, None)


def test_holms_adjustment() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_bad_rows_are_refused_all_at_once() -> None:
    rows = [ScoreRow(benchmark="a", plw=2, score=43.0), ScoreRow(benchmark="a", plw=2, score=0.5)]
    with pytest.raises(InputError) as raised:
        read_verdicts(rows)
    text = str(raised.value)
    assert "plw must be in [0, 1], got 2" in text
    assert "score must be in [0, 1], got 43; divide percentages by 100" in text
    assert "a second score of a for one trial" in text
    with pytest.raises(InputError, match="there are no scores"):
        read_verdicts([])
