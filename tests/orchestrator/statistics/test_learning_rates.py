"""Learning rates that are crossed with weights: weights are compared at each rate alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from orchestrator.analysis.panels import verdict_panels
from orchestrator.record.folder import TrialRecord
from orchestrator.statistics.conclusions import draw_conclusions
from orchestrator.statistics.conclusions_markdown import headline
from orchestrator.statistics.learning_rates import BestRate, find_best_rates, rates_as_conditions
from orchestrator.statistics.table import ScoreRow, read_scores
from tests.orchestrator.statistics.scores import Curve, flat, hill, make_rows
from tests.orchestrator.sweeps import trial

STUDY = Path("docs/studies/learning-rate/losses.csv")
SEEDS = ("0", "1", "2")
LOW, HIGH = 1e-4, 3e-4
LOW_END = "learning rate 0.0001 is the lowest with scores"
HIGH_END = "learning rate 0.0003 is the highest with scores"
THREE_GROUPS = {"a": (40.0,), "b": (50.0,), "c": (60.0,)}


def rows_of(means: Mapping[tuple[float, float], float], **same: Any) -> list[ScoreRow]:
    """Return rows with the given points by PLW and learning rate; seeds add 0, 1 and 2 points."""
    return [
        ScoreRow(benchmark="b", plw=plw, learning_rate=rate, seed=seed,
                 score=(points + int(seed)) / 100, **same)
        for (plw, rate), points in means.items()
        for seed in SEEDS
    ]  # fmt: skip


def crossed(curves: Mapping[float, Curve], **same: Any) -> list[ScoreRow]:
    """Return noisy rows of seven weights and three seeds at each learning rate."""
    return [
        replace(row, trial=f"{rate:g}-{row.plw:g}-{row.seed}")
        for index, (rate, curve) in enumerate(curves.items())
        for row in make_rows(curve, seed=index, trial_sd=0.2, learning_rate=rate, **same)
    ]


def records_of(rows: Sequence[ScoreRow]) -> dict[str, TrialRecord]:
    """Return the trial of each row by its name."""
    return {
        row.trial: trial(row.plw, seed=int(row.seed)).model_copy(update={"id": row.trial})
        for row in rows
    }


def test_best_rate_has_the_highest_mean_over_weights() -> None:
    means = {(0.0, LOW): 40.0, (1.0, LOW): 48.0, (0.0, HIGH): 44.0, (1.0, HIGH): 46.0}
    rows = rows_of(means, model="m")
    assert find_best_rates(rows) == (
        BestRate(
            name="m",
            cell=("m", "", "learning rate 0.0003"),
            learning_rate=HIGH,
            tried=(LOW, HIGH),
            best_by_weight=((0.0, HIGH), (1.0, LOW)),
        ),
    )
    assert {row.cell for row in rates_as_conditions(rows)} == {
        ("m", "", "learning rate 0.0001"),
        ("m", "", "learning rate 0.0003"),
    }
    named = [replace(row, condition="loss.normalization tokens") for row in rows]
    assert rates_as_conditions(named)[0].condition == (
        "loss.normalization tokens, learning rate 0.0001"
    )


def test_missing_pair_does_not_change_the_best_rate() -> None:
    means = {(0.0, LOW): 40.0, (0.1, LOW): 50.0, (1.0, LOW): 60.0,
             (0.0, HIGH): 41.0, (0.1, HIGH): 51.0, (1.0, HIGH): 61.0}  # fmt: skip
    del means[1.0, HIGH]
    [best] = find_best_rates(rows_of(means))
    assert best.learning_rate == HIGH
    assert best.best_by_weight == ((0.0, HIGH), (0.1, HIGH), (1.0, LOW))


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(
            [row for row in rows_of({(plw, rate): 1.0 for plw in (0, 1) for rate in (LOW, HIGH)})
             if row.seed != "2"], id="two seeds"),
        pytest.param(rows_of({(0.0, LOW): 1.0, (1.0, HIGH): 2.0}), id="rate along with weight"),
        pytest.param(rows_of({(0.0, LOW): 1.0, (1.0, LOW): 2.0}), id="one rate"),
        pytest.param(rows_of({(0.1 * each, LOW * each): 1.0 for each in range(1, 9)}),
                     id="random search"),
        pytest.param([*rows_of({(0.0, LOW): 1.0, (1.0, LOW): 2.0, (0.1, LOW): 1.0}),
                      *rows_of({(0.0, HIGH): 1.0})], id="one weight at a rate"),
        pytest.param([replace(row, learning_rate=None) for row in
                      rows_of({(0.0, LOW): 1.0, (1.0, HIGH): 2.0})], id="unknown"),
    ],
)  # fmt: skip
def test_other_designs_keep_the_rate_as_a_covariate(rows: list[ScoreRow]) -> None:
    assert find_best_rates(rows) == ()
    assert rates_as_conditions(rows) == rows


def test_opposite_effects_of_two_rates_are_not_averaged() -> None:
    rows = crossed({LOW: lambda at: -6 * at, HIGH: lambda at: 6 * at - 1})
    lead, other = draw_conclusions(rows).verdicts
    assert (lead.cell, lead.learning_rate, lead.kind, lead.num_trials) == (None, HIGH, "rises", 21)
    assert other.cell == ("", "", "learning rate 0.0001")
    assert (other.learning_rate, other.kind, other.num_trials) == (LOW, "falls", 21)
    assert lead.gain == pytest.approx(6.0, abs=0.5)
    notes = draw_conclusions(rows).notes
    assert any("depends on the learning rate (p < 0.001)" in note for note in notes)
    assert notes[-1] == "highest means at another learning rate: 0.0001 for PLW 0"


def test_verdict_of_a_rate_is_that_of_its_trials_alone() -> None:
    curves: dict[float, Curve] = {
        LOW: flat,
        HIGH: lambda at: 5 - 8 * (at - 0.6) ** 2,
        1e-3: lambda at: -3 * at,
    }
    found = draw_conclusions(crossed(curves))
    assert [verdict.learning_rate for verdict in found.verdicts] == [HIGH, LOW, 1e-3]
    for verdict in found.verdicts:
        rows = [row for row in crossed(curves) if row.learning_rate == verdict.learning_rate]
        alone = draw_conclusions(rows).lead
        assert verdict.p_value == pytest.approx(alone.p_value, rel=1e-9)
        assert (verdict.best_plw, verdict.gain) == pytest.approx((alone.best_plw, alone.gain))
    in_order = sorted(found.verdicts, key=lambda verdict: verdict.p_value or 0)
    holm = [count * (one.p_value or 0) for count, one in zip((3, 2, 1), in_order, strict=True)]
    assert in_order[0].adjusted_p_value == pytest.approx(holm[0])
    assert in_order[1].adjusted_p_value == pytest.approx(max(holm[:2]))


def test_models_have_their_own_best_rates() -> None:
    rows = [
        *crossed({LOW: lambda at: 3 + 4 * at, HIGH: lambda at: -4 * at}, model="small"),
        *crossed({LOW: lambda at: -4 * at, HIGH: lambda at: 3 + 4 * at}, model="large"),
    ]
    found = draw_conclusions(rows)
    assert [(best.cell[0], best.learning_rate) for best in found.best_rates] == [
        ("large", HIGH),
        ("small", LOW),
    ]
    assert found.lead.learning_rate is None
    assert (found.lead.kind, found.lead.num_trials) == ("rises", 42)
    kinds = {(one.cell or ("all",))[0::2]: one.kind for one in found.verdicts}
    assert kinds == {
        ("all",): "rises",
        ("large", "learning rate 0.0003"): "rises",
        ("small", "learning rate 0.0001"): "rises",
        ("large", "learning rate 0.0001"): "falls",
        ("small", "learning rate 0.0003"): "falls",
    }
    assert not any("confounded" in note or "changed along" in note for note in found.notes)


def test_weight_without_scores_at_the_best_rate_is_noted() -> None:
    curves: dict[float, Curve] = {LOW: flat, HIGH: lambda _: 5.0, 1e-3: flat}
    rows = [row for row in crossed(curves) if (row.plw, row.learning_rate) != (1.0, HIGH)]
    assert draw_conclusions(rows).notes == ("no scores of PLW 1 at 0.0003",)


def test_rate_at_the_end_of_the_range_is_noted() -> None:
    found = draw_conclusions(crossed({LOW: flat, HIGH: lambda _: 5.0}))
    assert found.notes[0] == (
        "learning rate 0.0003 is the highest with scores, so the best one may be beyond it"
    )


def test_next_trials_are_at_the_best_rate() -> None:
    found = draw_conclusions(crossed({LOW: flat, HIGH: lambda _: 5.0, 1e-3: flat}))
    assert found.lead.kind in ("cannot say", "no effect")
    assert {run.learning_rate for run in found.next_runs} <= {HIGH}


def test_published_study_agrees_with_its_paired_tests() -> None:
    """The study's own t tests find PLW 1 worse at 1e-4 (p = 0.006), not at the best rate."""
    found = draw_conclusions(
        read_scores(STUDY, shares=False), shares=False, higher_is_better=False, margin=0.01
    )
    kinds = {verdict.learning_rate: verdict.kind for verdict in found.verdicts}
    assert kinds == {3e-4: "cannot say", 3e-5: "tied", 1e-4: "tied", 1e-3: "cannot say"}
    assert found.lead.learning_rate == 3e-4
    at_first_rate = next(one for one in found.verdicts if one.learning_rate == 1e-4)
    assert at_first_rate.tied_plws == (0.0, 0.242)
    # The outlier, a trial at 1e-3, does not affect the verdict at 3e-4.
    assert found.outliers == ()


def test_rate_with_too_few_trials_does_not_take_the_lead_from_the_best_rate() -> None:
    high = [row for row in crossed({HIGH: lambda _: 5.0}) if row.plw in (0, 1) and row.seed == "0"]
    low = make_rows(hill, plws=(0.0, 0.1, 0.5, 1.0), seeds=5, learning_rate=LOW)
    found = draw_conclusions([*low, *high])
    lead, other = found.verdicts
    assert (lead.cell, lead.learning_rate, lead.num_trials, lead.kind) == (
        *(None, HIGH, 2),
        "cannot say",
    )
    assert "two weights need 2 residual degrees of freedom" in lead.text
    assert (other.learning_rate, other.num_trials) == (LOW, 20)
    assert {run.learning_rate for run in found.next_runs} == {HIGH}


def test_rate_with_one_weight_does_not_hide_the_effects_at_the_others() -> None:
    """Trials of the other weights may have diverged."""
    rows = [
        *crossed({LOW: lambda at: -6 * at, HIGH: lambda at: 6 * at - 1}),
        *(row for row in crossed({1e-3: lambda _: -5.0}) if row.plw == 1),
    ]
    found = draw_conclusions(rows)
    assert [(one.learning_rate, one.kind) for one in found.verdicts] == [
        (HIGH, "rises"),
        (LOW, "falls"),
        (1e-3, "cannot say"),
    ]
    assert found.verdicts[2].text == (
        "cannot say: at least two weights with scores are needed, got 1"
    )
    assert found.notes[0].startswith("the effect of the weight depends on the learning rate")
    assert "best of 3 learning rates" in headline(found)


def test_rate_that_lacks_a_group_has_no_overall_verdict() -> None:
    rates = (LOW, HIGH, 1e-3)
    rows = [
        row
        for row in crossed(dict.fromkeys(rates, lambda at: 4 * at), groups=THREE_GROUPS)
        if row.group != "c" or row.learning_rate != 1e-3
    ]
    found = draw_conclusions(rows)
    assert found.best_rates[0].tried == rates
    last = found.verdicts[-1]
    assert (last.group, last.learning_rate, last.kind, last.num_trials) == (
        *("overall", 1e-3, "cannot say"),
        0,
    )
    # Only one rate has all groups.
    rows = [row for row in rows if row.group != "c" or row.learning_rate == LOW]
    found = draw_conclusions(rows)
    assert found.lead.learning_rate == LOW
    assert "best of 3 learning rates" in headline(found)
    assert not any(LOW_END in note and "highest" in note for note in found.notes)
    records = records_of(rows)
    panels = verdict_panels(found, rows, records, None, {})
    [overall] = [panel for panel in panels if panel.id == "overall"]
    assert [(each.is_compared, each.line is not None) for each in overall.series] == [(True, True)]


def test_notes_on_rates_name_the_condition() -> None:
    rows = [
        *crossed({LOW: flat, HIGH: lambda _: 5.0}, condition="tokens"),
        *crossed({LOW: lambda _: 5.0, HIGH: flat}, condition="weights"),
    ]
    found = draw_conclusions(rows)
    assert [best.name for best in found.best_rates] == ["tokens", "weights"]
    assert [note.partition(",")[0] for note in found.notes] == [
        f"tokens: {HIGH_END}",
        f"weights: {LOW_END}",
    ]


def test_equal_means_name_no_other_rate() -> None:
    rows = [replace(row, score=0.5) for row in crossed({LOW: flat, HIGH: flat})]
    found = draw_conclusions(rows)
    assert {rate for _, rate in found.best_rates[0].best_by_weight} == {LOW}
    assert [note.partition(",")[0] for note in found.notes] == [LOW_END]


def test_identical_seeds_allow_no_test_of_the_rates() -> None:
    means = {(plw, rate): 40 + plw * rate * 1e4 for plw in (0.0, 0.1, 1.0) for rate in (LOW, HIGH)}
    rows = [replace(row, score=means[row.plw, row.learning_rate or 0] / 100)
            for row in rows_of(means)]  # fmt: skip
    assert not any("depends on the learning rate" in note for note in draw_conclusions(rows).notes)


def test_one_rate_for_each_model_is_confounded() -> None:
    rows = [*crossed({LOW: flat}, model="small"), *crossed({HIGH: flat}, model="large")]
    [note] = draw_conclusions(rows).notes
    assert note.startswith("each model, data set and condition had one learning rate")


def test_rates_that_differ_by_rounding_are_one_rate(tmp_path: Path) -> None:
    lines = [f"b,{plw},{rate},{seed},0.5" for plw in (0, 0.1, 1)
             for rate, seed in (("1e-4", 0), ("1e-4", 1), ("1.0000001e-4", 2))]  # fmt: skip
    path = tmp_path / "scores.csv"
    path.write_text("\n".join(["benchmark,plw,learning_rate,seed,score", *lines]))
    assert {row.learning_rate for row in read_scores(path)} == {LOW}


def test_models_are_drawn_relative_to_their_best_rates() -> None:
    rows = [
        *crossed({LOW: flat, HIGH: lambda _: 8.0}, model="small"),
        *crossed({LOW: lambda _: 4.0, HIGH: flat}, model="large"),
    ]
    found = draw_conclusions(rows)
    rows = [replace(row, trial=f"{row.model}-{row.trial}") for row in rows]
    [panel] = verdict_panels(found, rows, records_of(rows), None, {})
    assert panel.is_relative
    means = {each.label: fmean(point.value for point in each.points)
             for each in panel.series if each.points}  # fmt: skip
    assert means == {
        "small, learning rate 0.0003": pytest.approx(0, abs=1e-9),
        "small, learning rate 0.0001": pytest.approx(-8, abs=0.3),
        "large, learning rate 0.0001": pytest.approx(0, abs=1e-9),
        "large, learning rate 0.0003": pytest.approx(-4, abs=0.3),
    }
