"""The plots of a report: what is drawn, and that it can be read."""

import struct
from itertools import pairwise

import pytest
from matplotlib.figure import Figure

from orchestrator.analysis.answer import analyse
from orchestrator.foundation.plw_scale import w_p
from orchestrator.record.folder import SweepFolder
from orchestrator.report.pages import write_report
from orchestrator.report.plots import draw_panel, tick_weights
from tests.orchestrator.sweeps import card, hill, sweep_record, trial, write_demo

ACCURACY = "multiple_choice_accuracy"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    folder = write_demo(tmp_path_factory.mktemp("plots") / "demo")
    write_report(folder)
    return folder


def test_plots_are_written_as_svg_and_png(demo: SweepFolder) -> None:
    stems = [
        "heldout_completion_loss",
        "long_generation",
        "multiple_choice",
        "overall",
        "scores",
        "short_generation",
    ]
    names = sorted(path.name for path in demo.plots.iterdir())
    assert names == sorted(f"{stem}.{kind}" for stem in stems for kind in ("png", "svg"))
    png = (demo.plots / "scores.png").read_bytes()
    width, height = struct.unpack(">II", png[16:24])
    # Wide enough for print, and no wider than two panels.
    assert 1400 < width <= 1520
    assert 1500 < height <= 1700
    svg = (demo.plots / "multiple_choice.svg").read_text(encoding="utf-8")
    for text in ("Multiple choice", "untuned model", "95% interval over items", "fitted curve"):
        assert f">{text}</text>" in svg


def test_the_interval_of_the_best_plw_stands_at_the_foot_of_its_panel() -> None:
    trials, cards = hill()
    panel = analyse(sweep_record([t.id for t in trials]), trials, cards, {}).panels[0]
    axes = Figure().add_subplot()
    draw_panel(axes, panel)
    lines = {line.get_label(): line for line in axes.lines}
    ((low, high),) = panel.pieces
    bar = lines["95% interval of the best PLW"].get_xdata()
    assert list(bar) == pytest.approx([w_p(low), w_p(high)])
    assert panel.best_plw is not None
    assert list(lines["best PLW, fitted"].get_xdata()) == pytest.approx([w_p(panel.best_plw)])


def test_series_differ_in_marker_and_not_in_colour_alone() -> None:
    trials = [
        trial(plw, searched={"optimizer.learning_rate": rate})
        for plw in (0.0, 0.1)
        for rate in (1e-5, 1e-4, 1e-3)
    ]
    cards = {t.id: card({ACCURACY: (0.8, 0.5, 0.9)}) for t in trials}
    [panel] = analyse(sweep_record([t.id for t in trials]), trials, cards, {}).panels
    axes = Figure().add_subplot()
    draw_panel(axes, panel)
    markers = {line.get_label(): line.get_marker() for line in axes.lines}
    assert markers == {
        "learning_rate 1e-05": "o",
        "learning_rate 0.0001": "s",
        "learning_rate 0.001": "^",
    }
    places = {x for line in axes.lines for x in line.get_xdata()}
    assert len(places) == 6


def test_untuned_model_far_off_is_told_and_not_drawn(demo: SweepFolder) -> None:
    svg = (demo.plots / "heldout_completion_loss.svg").read_text(encoding="utf-8")
    assert ">untuned model: 5.301, above the panel</text>" in svg


def test_tick_labels_never_touch_and_both_ends_are_labelled() -> None:
    paper = [0, 5e-4, 2.236e-3, 1e-2, 2.463e-2, 5e-2, 1e-1, 2.463e-1, 5e-1, 1]
    ticks = tick_weights(paper)
    assert ticks == [0, 5e-4, 1e-2, 5e-2, 2.463e-1, 5e-1, 1]
    gaps = [w_p(b) - w_p(a) for a, b in pairwise(ticks)]
    assert min(gaps) > 0.09
    assert tick_weights([0.1]) == [0, 0.001, 0.01, 0.1, 0.5, 1]
