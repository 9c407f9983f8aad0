"""Panels of the report: curves, points and intervals of each group."""

from pathlib import Path

import pytest

from orchestrator.analysis.sweep_findings import analyse, read_findings
from tests.orchestrator.analysis.known_findings import ACCURACY, findings_of, stepped
from tests.orchestrator.sweeps import (
    BASE,
    UNTUNED,
    card,
    hill,
    sweep_record,
    write_two_models,
)


def test_fitted_curve_passes_through_the_points() -> None:
    panels = {panel.id: panel for panel in findings_of(*hill()).panels}
    for name, top in (("multiple_choice", 62), ("long_generation", 27), ("overall", 42)):
        panel = panels[name]
        (series,) = panel.series
        assert series.line is not None
        at = {
            round(place, 6): value
            for place, value in zip(series.line.w_p, series.line.value, strict=True)
        }
        assert max(at.values()) == pytest.approx(top, abs=1)
        assert at[0.5] == pytest.approx(series.points[3].value, abs=1)
        assert series.line.low[0] < series.line.value[0] < series.line.high[0]
    loss = panels["heldout_completion_loss"].series[0]
    assert loss.line is not None
    assert min(loss.line.value) == pytest.approx(2.5 - 0.62, abs=0.01)
    assert loss.line.low[0] < loss.line.value[0] < loss.line.high[0]


def test_points_exclude_seed_levels_and_have_intervals_within_seeds() -> None:
    [panel] = findings_of(*stepped()).panels
    assert panel.is_within_seeds
    first, second, *_ = panel.points
    # Means over all seeds, and the values of trials, are as scored.
    assert first.value == pytest.approx(45, abs=0.2)
    assert second.value == pytest.approx(55, abs=0.2)
    assert [round(value) for value in first.values] == [40, 45, 50]
    for point in panel.points:
        assert point.ci_low is not None
        # With the seeds' differences of 5 points the half-width would be 12 points.
        assert point.value - 2 < point.ci_low < point.value


def test_losses_exclude_seed_levels() -> None:
    trials, cards = stepped()
    for record in trials:
        value = 2 - cards[record.id].by_name()[ACCURACY].value
        cards[record.id] = card({"heldout_completion_loss": (value, value - 0.1, value + 0.1)})
    [panel] = findings_of(trials, cards).panels
    assert panel.points[0].value == pytest.approx(1.55, abs=0.002)
    assert panel.points[0].ci_low == pytest.approx(1.55, abs=0.02)


def test_line_has_its_method_and_joins_means_if_no_curve_fits() -> None:
    lines = {seeds: findings_of(*hill(seeds=seeds)).panels[0].series[0].line for seeds in (1, 3)}
    assert {seeds: line.method for seeds, line in lines.items() if line is not None} == {
        1: "assumed curve",
        3: "curve",
    }
    [panel] = findings_of(*stepped()).panels
    line = panel.series[0].line
    assert line is not None
    assert line.method == "means"
    assert line.w_p == pytest.approx([point.w_p for point in panel.points])
    assert line.value == pytest.approx([point.value for point in panel.points])


def test_best_weight_is_marked_only_with_an_effect() -> None:
    best = findings_of(*hill()).panels[0].best
    assert best is not None
    assert (round(best.plw or 0, 2), best.nearest_plw, best.tied_plws) == (0.24, 0.25, [])
    tied = findings_of(*stepped()).panels[0].best
    assert tied is not None
    assert tied.tied_plws == [0.01, 0.05, 0.1, 0.5, 1.0]
    assert findings_of(*hill(noise=1.0)).panels[0].best is None


def test_untuned_scores_are_on_the_scale_of_the_panel() -> None:
    trials, cards = hill()
    findings = analyse(sweep_record([t.id for t in trials]), trials, cards, {BASE: card(UNTUNED)})
    untuned = {panel.id: panel.untuned for panel in findings.panels}
    assert untuned["multiple_choice"] is not None
    assert untuned["multiple_choice"].value == pytest.approx(56)
    assert untuned["overall"] is not None
    assert untuned["overall"].value == pytest.approx((56 + 0 + 12) / 3)


def test_trials_are_compared_within_their_model(tmp_path: Path) -> None:
    findings = read_findings(write_two_models(tmp_path / "s"))
    (panel,) = findings.panels
    assert panel.is_relative
    assert panel.untuned is None
    found = {
        series.label: [round(point.value, 6) for point in series.points] for series in panel.series
    }
    assert found == {"model weak": [-10, 10], "model strong": [-10, 10]}
    assert findings.varied == []
    assert findings.is_about_plw


def test_mechanism_panels_and_messages_on_missing_measures() -> None:
    trials, cards = hill()
    trials = [t.model_copy(update={"distance": 2 + t.prompt_loss_weight}) for t in trials]
    findings = findings_of(trials, cards)
    (distance,) = findings.of_kind("mechanism")
    assert [point.value for point in distance.points][::6] == [2.0, 3.0]
    assert findings.not_recorded == [
        "Loss stability was not recorded: train for at least ten logged steps.",
        "Memorisation was not recorded: set evals.memorisation.",
        "Generation length was not recorded: set evals.memorisation.",
    ]
