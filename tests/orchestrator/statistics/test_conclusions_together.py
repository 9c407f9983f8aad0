"""Joint verdicts on several groups, models and tables: means of points, one Holm family, losses."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm

from orchestrator.statistics.conclusions import (
    Conclusions,
    draw_conclusions,
    draw_joint_conclusions,
    holm,
)
from orchestrator.statistics.study import Table
from orchestrator.statistics.table import ScoreRow
from tests.orchestrator.statistics.scores import (
    PLWS,
    SIX,
    TWO_GROUPS,
    analysed,
    flat,
    hill,
    make_rows,
    w_p,
)
from trainers.foundation.errors import InputError


def test_several_groups_have_an_overall_verdict_first_and_a_front() -> None:
    found = draw_conclusions(make_rows(hill, groups=TWO_GROUPS, trial_sd=0.1))
    assert [verdict.group for verdict in found.verdicts] == [
        "overall", "multiple_choice", "short_generation",
    ]  # fmt: skip
    assert [point.plw for point in found.front] == list(PLWS)


def test_the_overall_gain_is_the_mean_of_the_groups_points() -> None:
    """The mean of the true gains 3.8, 3.8 and 0 is 2.5, independent of the groups' levels."""
    rise = {"chance": lambda at: 3.8 * at, "chrf": lambda at: 3.8 * at, "math": flat}
    rows = make_rows(rise, plws=SIX, groups={"chance": (60.0,), "chrf": (12.0,), "math": (4.0,)},
                   trial_sd=0.1, seed=1)  # fmt: skip
    found = {verdict.group: verdict for verdict in draw_conclusions(rows).verdicts}
    assert found["overall"].gain == pytest.approx(2 / 3 * 3.8, abs=0.1)
    assert found["chrf"].gain == pytest.approx(3.8, abs=0.2)
    assert found["chance"].gain == pytest.approx(3.8, abs=0.2)
    assert found["math"].kind == "no effect"


def test_benchmarks_count_equally_whatever_their_number_of_items() -> None:
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
    found = draw_conclusions(rows).lead
    assert (found.kind, found.best_plw) == ("rises", 1.0)
    assert found.gain == pytest.approx(3.8, abs=0.02)


@pytest.mark.parametrize("at_floor", [0.0, 1.5])
def test_benchmarks_near_the_floor_neither_dominate_nor_suppress(at_floor: float) -> None:
    """Exact match of 0 to 3% on 400 items beside a group that rises by 4 points."""
    rng = np.random.default_rng(1)
    rows = make_rows(lambda at: 4 * at, plws=SIX, groups={"mc": (50.0, 60.0)}, trial_sd=0.2, seed=1)
    rows += [
        ScoreRow(benchmark="exact_match", group="generation", plw=plw, seed=str(seed),
                 score=rng.binomial(400, at_floor / 100) / 400, num_items=400)
        for plw in SIX
        for seed in range(3)
    ]  # fmt: skip
    found = {verdict.group: verdict for verdict in draw_conclusions(rows).verdicts}
    assert found["overall"].kind == "rises"
    assert found["overall"].gain == pytest.approx(2.0, abs=0.8)
    assert found["mc"].gain == pytest.approx(4.0, abs=0.3)
    assert found["generation"].kind == "cannot say"


def test_verdict_equals_least_squares_on_mean_points_with_seeds_as_blocks() -> None:
    groups = {"a": (60.0, 70.0, 30.0), "b": (12.0,), "c": (8.0, 40.0)}
    rows = make_rows(hill, plws=SIX, groups=groups, seed_sd=0.5, seed=4)
    found = draw_conclusions(rows).lead
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


def test_missing_benchmark_does_not_bias_a_trial() -> None:
    rows = make_rows(hill, groups={"g": (20.0, 50.0, 80.0)}, trial_sd=0.1, seed=1)
    partial = [row for row in rows
               if not (row.plw == 0 and row.seed == "0" and row.benchmark == "g0")]  # fmt: skip
    assert draw_conclusions(partial).lead.best_plw == pytest.approx(
        draw_conclusions(rows).lead.best_plw, rel=0.1
    )
    assert draw_conclusions(partial).lead.gain == pytest.approx(
        draw_conclusions(rows).lead.gain, abs=0.15
    )


def test_models_with_different_optima_have_separate_verdicts_and_a_note() -> None:
    low = make_rows(lambda at: -8 * (at - 0.3) ** 2, model="small", groups=TWO_GROUPS, trial_sd=0.1)
    high = make_rows(lambda at: -8 * (at - 0.8) ** 2, model="large", seed=1, groups=TWO_GROUPS,
                   trial_sd=0.1)  # fmt: skip
    found = draw_conclusions(low + high)
    assert [verdict.name for verdict in found.verdicts] == [
        "overall", "multiple_choice", "short_generation", "overall-large", "overall-small",
    ]  # fmt: skip
    own = {verdict.cell[0]: verdict for verdict in found.verdicts if verdict.cell}
    assert own["small"].best_plw == pytest.approx(0.3**3.3219, rel=0.5)
    assert own["large"].best_plw == pytest.approx(0.8**3.3219, rel=0.3)
    assert any("have different curves" in note for note in found.notes)


def test_models_that_differ_only_in_level_share_a_curve() -> None:
    low = make_rows(lambda at: -8 * (at - 0.6) ** 2, model="small", groups=TWO_GROUPS, trial_sd=0.1)
    high = make_rows(lambda at: 20 - 8 * (at - 0.6) ** 2, model="large", seed=1, groups=TWO_GROUPS,
                   trial_sd=0.1)  # fmt: skip
    found = draw_conclusions(low + high)
    assert found.lead.num_trials == 42
    assert found.lead.interaction_p_value == pytest.approx(0.5, abs=0.45)
    assert found.lead.best_plw == pytest.approx(0.6**3.3219, rel=0.2)
    assert not any("have different curves" in note for note in found.notes)


def test_group_missing_in_one_model_is_analysed_in_the_other() -> None:
    both = make_rows(hill, model="small", groups=TWO_GROUPS, seed=1, trial_sd=0.1)
    one = make_rows(hill, model="large", groups={"multiple_choice": (45.0, 50.0, 55.0)})
    found = draw_conclusions(both + one)
    short = next(each for each in found.verdicts if each.group == "short_generation")
    assert (short.kind, short.num_trials) == ("best", 21)
    assert any("left out of the overall verdict" in note for note in found.notes)


def test_noisier_weights_do_not_raise_the_false_positive_rate() -> None:
    """At 5%, 150 flat studies with threefold noise at one or both ends make 17 or more claims in 1
    of 1,000 cases.
    """
    for noisier in ({0.0: 3.0}, {0.0: 3.0, 1.0: 3.0}):
        claims = 0
        for seed in range(150):
            rows = make_rows(flat, plws=SIX, trial_sd=0.5, seed_sd=0.5, noisier=noisier, seed=seed,
                           groups={"g": (50.0,)})  # fmt: skip
            claims += analysed(rows).p_value < 0.05
        assert claims < 17, noisier


def test_groups_without_shared_trials_have_no_overall_verdict() -> None:
    first = make_rows(hill, groups={"a": (50.0,)}, seed=1)
    second = [replace(row, seed=f"1{row.seed}") for row in make_rows(hill, groups={"b": (50.0,)})]
    found = draw_conclusions(first + second)
    assert [verdict.group for verdict in found.verdicts] == ["overall", "a", "b"]
    assert (found.lead.kind, found.lead.num_trials) == ("cannot say", 0)
    assert found.lead.text == "cannot say: at least two weights with scores are needed, got 0"
    assert found.verdicts[1].kind == "best"


def test_swept_learning_rate_is_adjusted_for() -> None:
    same = {"trial_sd": 0.1, "seeds": 2}
    slow = make_rows(lambda at: -8 * (at - 0.6) ** 2, learning_rate=1e-5, **same)
    fast = make_rows(lambda at: 9 - 8 * (at - 0.6) ** 2, learning_rate=1e-4, seed=1, **same)
    found = draw_conclusions(slow + fast)
    assert found.lead.kind in ("best", "tied")
    ((low, high),) = found.lead.pieces
    assert low < 0.6**3.3219 < high < 0.35
    assert (
        "the verdicts adjust for the learning rate, by a parabola in its logarithm"
        in found.notes[0]
    )


def test_confounded_learning_rate_is_noted() -> None:
    rows = [replace(row, learning_rate=1e-5 * 10 ** (2 * row.w_p)) for row in make_rows(hill)]
    assert any("changed along with PLW" in note for note in draw_conclusions(rows).notes)
    fixed = draw_conclusions(make_rows(hill, learning_rate=1e-5)).notes
    assert any("learning rate 1e-05" in note and "confounded" in note for note in fixed)


def test_scores_near_the_floor_are_noted() -> None:
    note = "all scores are below 0.02: they are near the floor, or were divided by 100 twice"
    rows = [replace(row, score=row.score / 100) for row in make_rows(hill)]
    assert note in draw_conclusions(rows).notes
    assert note not in draw_conclusions(make_rows(hill)).notes


def losses(curve: Callable[[float], float] = lambda at: (at - 0.6) ** 2) -> list[ScoreRow]:
    rng = np.random.default_rng(1)
    return [
        ScoreRow(benchmark="loss", group="heldout_loss", plw=plw, seed=str(seed),
                 score=2 + curve(w_p(plw)) + 0.005 * rng.standard_normal())
        for plw in PLWS
        for seed in range(3)
    ]  # fmt: skip


def test_losses_keep_their_unit_and_lower_is_better() -> None:
    found = draw_conclusions(
        losses(), shares=False, higher_is_better=False, margin=0.01, unit="nats"
    )
    assert found.unit == "nats"
    assert found.lead.best_plw == pytest.approx(0.6**3.3219, rel=0.2)
    assert found.lead.difference == pytest.approx(0.36, abs=0.03)
    assert found.lead.gain == pytest.approx(0.36, abs=0.03)


def test_error_rates_are_reported_in_points() -> None:
    rows = make_rows(lambda at: 4 * at, seed=1)
    found = draw_conclusions(rows, higher_is_better=False)
    assert (found.unit, found.lead.kind, found.lead.best_plw) == ("points", "falls", 0.0)
    assert found.lead.difference == pytest.approx(4, abs=0.4)


def test_scores_and_losses_are_one_holm_family() -> None:
    scores = make_rows(lambda at: 2 * at, groups=TWO_GROUPS, seed=1, trial_sd=0.4)
    loss = Table(rows=losses(flat), shares=False, higher_is_better=False, margin=0.01, unit="nats")
    both: list[Conclusions] = draw_joint_conclusions([Table(rows=scores), loss])
    verdicts = [verdict for found in both for verdict in found.verdicts]
    p_values = [float(verdict.p_value or 0) for verdict in verdicts]
    assert len(p_values) == 4
    order = np.argsort(p_values)
    expected, highest = np.empty(4), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (4 - rank) * p_values[index]))
        expected[index] = highest
    assert [verdict.adjusted_p_value for verdict in verdicts] == pytest.approx(expected.tolist())
    alone = draw_conclusions(scores)
    assert alone.lead.p_value == pytest.approx(both[0].lead.p_value)
    assert both[0].lead.adjusted_p_value > alone.lead.adjusted_p_value


def test_untestable_verdicts_do_not_count_in_the_holm_correction() -> None:
    rows = make_rows(hill, groups={"a": (50.0,)}, seed=1)
    floor = [replace(row, benchmark="f", group="floor", score=0.0) for row in rows]
    found = {verdict.group: verdict for verdict in draw_conclusions(rows + floor).verdicts}
    assert found["floor"].p_value is None
    # Two equal p-values are left: those of overall and of a.
    assert found["a"].adjusted_p_value == pytest.approx(2 * found["a"].p_value)


def test_holms_adjustment() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_seed_levels_are_reported_where_verdicts_compare_within_seeds() -> None:
    found = draw_conclusions(make_rows(hill, seed_sd=2.0, seed=1, trial_sd=0.1))
    assert found.lead.is_within_seeds
    assert [level.seed for level in found.seed_levels] == ["0", "1", "2"]
    assert sum(level.level for level in found.seed_levels) == pytest.approx(0, abs=1e-9)
    rng = np.random.default_rng(1)
    truth = 2.0 * rng.standard_normal(3)
    assert [level.level for level in found.seed_levels] == pytest.approx(
        truth - truth.mean(), abs=0.15
    )
    assert draw_conclusions(make_rows(hill, seeds=1)).seed_levels == ()


def test_all_bad_rows_are_reported_at_once() -> None:
    rows = [ScoreRow(benchmark="a", plw=2, score=43.0), ScoreRow(benchmark="a", plw=2, score=0.5)]
    with pytest.raises(InputError) as raised:
        draw_conclusions(rows)
    text = str(raised.value)
    assert "plw must be in [0, 1], got 2" in text
    assert "score must be in [0, 1], got 43; divide percentages by 100" in text
    assert "second score of a for one trial" in text
    with pytest.raises(InputError, match="no scores found"):
        draw_conclusions([])


def test_group_named_overall_is_rejected_if_there_are_others() -> None:
    rows = make_rows(hill, groups={"overall": (50.0,), "b": (40.0,)})
    with pytest.raises(InputError, match="overall"):
        draw_conclusions(rows)
    assert (
        draw_conclusions(make_rows(hill, groups={"overall": (50.0,)}, seed=1)).lead.kind == "best"
    )
