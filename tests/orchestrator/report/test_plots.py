"""Plots of a report."""

import struct
from collections.abc import Sequence
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orchestrator.analysis.findings import Best, Line, Panel, Point, Series
from orchestrator.analysis.sweep_findings import analyse
from orchestrator.foundation.plw_scale import w_p
from orchestrator.record.folder import SweepFolder
from orchestrator.report.pages import write_report
from orchestrator.report.panel_drawing import draw_panel, tick_weights
from orchestrator.report.plots import panel_svg
from tests.orchestrator.sweeps import card, hill, sweep_record, trial, write_demo

ACCURACY = "quiz.acc"


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
    # Wide enough for print, at most two panels wide.
    assert 1400 < width <= 1520
    assert 1500 < height <= 1700
    svg = (demo.plots / "multiple_choice.svg").read_text(encoding="utf-8")
    for text in ("Multiple choice", "untuned model", "95% interval over items"):
        assert f">{text}</text>" in svg
    assert ">assumed parabola (untested)</text>" in svg


def hill_panel(**changes: int) -> Panel:
    trials, cards = hill(**changes)
    return analyse(sweep_record([t.id for t in trials]), trials, cards, {}).panels[0]


def draw_and_collect(panel: Panel) -> dict[object, Line2D]:
    """Return the lines and marks of a panel by label."""
    axes = Figure().add_subplot()
    draw_panel(axes, panel)
    return {line.get_label(): line for line in axes.lines}


def test_interval_of_the_best_plw_is_marked_at_the_bottom() -> None:
    panel = hill_panel()
    assert panel.best is not None
    lines = draw_and_collect(panel)
    ((low, high),) = panel.best.pieces
    bar = lines["95% interval of the best PLW"].get_xdata()
    assert list(bar) == pytest.approx([w_p(low), w_p(high)])
    assert panel.best.plw is not None
    mark = lines["best: 0.24 (nearest tried: 0.25)"]
    assert list(mark.get_xdata()) == pytest.approx([w_p(panel.best.plw)])


def test_fitted_curve_is_solid_and_assumed_curve_dashed() -> None:
    assert draw_and_collect(hill_panel())["fitted curve"].get_linestyle() == "-"
    assert (
        draw_and_collect(hill_panel(seeds=1))["assumed parabola (untested)"].get_linestyle() == "--"
    )


def test_means_are_joined_and_tied_weights_marked() -> None:
    panel = hill_panel()
    line = Line(method="means", w_p=[0.0, 0.5, 1.0], value=[1.0, 2.0, 3.0], low=None, high=None)
    best = Best(plw=1.0, nearest_plw=1.0, pieces=[(0.1, 1.0)], tied_plws=[0.1, 0.5, 1.0])
    series = panel.series[0].model_copy(update={"line": line})
    lines = draw_and_collect(panel.model_copy(update={"series": [series], "best": best}))
    joined = lines["means of tried weights, joined"]
    assert (list(joined.get_ydata()), joined.get_linewidth()) == ([1.0, 2.0, 3.0], 0.9)
    marks = lines["weights that may be best (95%)"]
    assert list(marks.get_xdata()) == pytest.approx([0.5, w_p(0.5), 1.0], abs=1e-6)
    assert "highest mean: PLW 1" in lines


def test_axis_and_legend_say_within_seeds() -> None:
    axes = Figure().add_subplot()
    draw_panel(axes, hill_panel())
    assert axes.get_ylabel() == "points less seed level\n(higher is better)"
    assert "95% interval within seeds" in axes.get_legend_handles_labels()[1]


def test_legends_are_no_wider_than_their_panels() -> None:
    long = "model SmolLM2-135M-Instruct, data python-docs-short-completions.jsonl"
    panel = hill_panel()
    series = [panel.series[0].model_copy(update={"label": f"{long} {n}"}) for n in (1, 2)]
    for each in (panel, panel.model_copy(update={"series": series})):
        figure = Figure(figsize=(5.0, 3.7))
        axes = figure.add_subplot()
        draw_panel(axes, each)
        legend = axes.get_legend()
        assert legend is not None
        renderer = FigureCanvasAgg(figure).get_renderer()
        assert legend.get_window_extent(renderer).width <= 4.2 * figure.dpi


def test_series_differ_in_marker_and_colour() -> None:
    trials = [
        trial(plw, searched={"optimizer.learning_rate": rate})
        for plw in (0.0, 0.1)
        for rate in (1e-5, 1e-4, 1e-3)
    ]
    cards = {t.id: card({ACCURACY: (0.8, 0.5, 0.9)}) for t in trials}
    [panel] = analyse(sweep_record([t.id for t in trials]), trials, cards, {}).panels
    axes = Figure().add_subplot()
    draw_panel(axes, panel)
    dots = [line for line in axes.lines if line.get_marker() != "None"]
    assert {line.get_label(): line.get_marker() for line in dots} == {
        "learning_rate 1e-05": "o",
        "learning_rate 0.0001": "s",
        "learning_rate 0.001": "^",
    }
    places = {x for line in dots for x in line.get_xdata()}
    assert len(places) == 6


def test_distant_untuned_model_is_only_in_the_legend(demo: SweepFolder) -> None:
    svg = (demo.plots / "heldout_completion_loss.svg").read_text(encoding="utf-8")
    assert ">untuned: 5.301 (above panel)</text>" in svg


def test_tick_labels_do_not_overlap_and_include_both_ends() -> None:
    paper = [0, 5e-4, 2.236e-3, 1e-2, 2.463e-2, 5e-2, 1e-1, 2.463e-1, 5e-1, 1]
    ticks = tick_weights(paper)
    assert ticks == [0, 5e-4, 1e-2, 5e-2, 2.463e-1, 5e-1, 1]
    gaps = [w_p(b) - w_p(a) for a, b in pairwise(ticks)]
    assert min(gaps) > 0.09
    assert tick_weights([0.1]) == [0, 0.001, 0.01, 0.1, 0.5, 1]


def split_by_rate(rates: Sequence[float]) -> Panel:
    line = Line(
        method="curve", w_p=[0.0, 1.0], value=[50.0, 60.0], low=[49.0, 59.0], high=[51.0, 61.0]
    )
    points = [
        Point(
            value=50 + 10 * plw, ci_low=None, ci_high=None, interval=None, num_items=0,
            prompt_loss_weight=plw, w_p=plw, other_settings={"learning_rate": rate},
            values=[50.0], seeds=[0], trial_ids=[f"{plw}-{rate}"],
        )
        for plw in (0.0, 1.0)
        for rate in rates
    ]  # fmt: skip
    series = Series(label="", cell=("", "", ""), points=points, line=line)
    return Panel(id="g", kind="answer", title="G", unit="points", higher_is_better=True,
                 is_relative=False, series=[series])  # fmt: skip


def test_curve_of_split_points_has_a_label_and_a_band() -> None:
    for rates, name in (
        ((1e-5, 1e-4), "fitted curve, all settings"),
        (range(1, 9), "fitted curve"),
    ):
        axes = Figure().add_subplot()
        draw_panel(axes, split_by_rate(list(rates)))
        lines = {line.get_label(): line for line in axes.lines}
        assert list(lines[name].get_ydata()) == [50.0, 60.0]
        assert [band.get_label() for band in axes.collections if band.get_label() != "_"][:1] == [
            "95% band of its shape"
        ]


def test_a_curve_without_the_effect_of_the_rate_is_labelled() -> None:
    panel = split_by_rate(range(1, 9))
    line = panel.series[0].line
    assert line is not None
    adjusted = panel.series[0].model_copy(
        update={"line": line.model_copy(update={"is_adjusted": True})}
    )
    lines = draw_and_collect(panel.model_copy(update={"series": [adjusted]}))
    assert "fitted curve, adjusted for the learning rate (points are not)" in lines


def test_legends_and_titles_fit_the_figure() -> None:
    panel = split_by_rate([1e-5, 1e-4])
    long = panel.model_copy(update={"title": "a very long title of a group of benchmarks " * 3})
    width, height = (
        float(each.removesuffix("pt"))
        for each in ElementTree.fromstring(panel_svg(panel).decode()).attrib["viewBox"].split()[2:]
    )
    root = ElementTree.fromstring(panel_svg(long).decode())
    long_width, long_height = (float(each) for each in root.attrib["viewBox"].split()[2:])
    # The title has a second line, and the figure is not larger.
    assert (long_width, long_height) == pytest.approx((width, height), abs=8)
