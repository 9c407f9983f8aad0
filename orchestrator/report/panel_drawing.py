"""Draw a panel of a report with matplotlib.

Series differ in marker and line style as well as in colour.
"""

import re
from collections.abc import Sequence
from textwrap import fill, shorten
from typing import TYPE_CHECKING, Any

from orchestrator.analysis.findings import Best, Line, Panel, Point, Series
from orchestrator.foundation.plw_scale import w_p
from orchestrator.report.hover_points import mark_points
from orchestrator.statistics.messages import format_plw, format_tried_plw
from orchestrator.statistics.weight_analysis import Method

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE = "#1f5fa8"
ORANGE = "#b5541c"
GREY = "#5f6368"
SERIES_COLOURS = (BLUE, "#8a3ffc", "#00796b", "#a0215f", "#6b5900", "#37474f")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
MAX_CATEGORIES = 30
# Legend layouts (columns, characters per line), in order of preference.
LEGEND_LAYOUTS = ((2, 34), (2, 28), (1, 60), (1, 50), (1, 40))
# Maximum width of the legend, which starts at the left edge of the axes.
LEGEND_INCHES = 4.2
LABEL_CHARACTERS = 90
# Space between the axes and the legend, for the tick labels and the axis label.
LEGEND_GAP_INCHES = 0.52
# Characters per title line; a title has two lines at most.
TITLE_CHARACTERS = 40
_SECTION = re.compile(r"\b[a-z_]+\.(?=[a-z_]+ )")
PANEL_INCHES = (5.0, 3.7)
# Tick-label width on the w_p axis: 1.08 axis units take about 4 inches at 10 points.
CHARACTER_WIDTH = 0.024
LABEL_GAP = 0.015
LANDMARKS = (0.1, 0.01, 0.5, 0.001)
# Series at one PLW are shifted, so that their error bars do not overlap.
SERIES_SHIFT = 0.012
# More ticks would overlap. For 1,000 trials, matplotlib would take half a minute to draw them.
MAX_MINOR_TICKS = 100
# Maximum distance of the untuned model from the points, relative to the range of their intervals. A
# model farther away gets no line.
FAR_OFF = 1.5
METHOD_NAMES: dict[Method, str] = {
    "curve": "fitted curve",
    "assumed curve": "assumed parabola (untested)",
    "means": "means of tried weights, joined",
}
# The line style identifies the series if there are several, else the method.
METHOD_LINES: dict[Method, Any] = {"curve": "-", "assumed curve": "--", "means": (0, (2, 2))}
METHOD_WIDTHS: dict[Method, float] = {"curve": 1.4, "assumed curve": 1.4, "means": 0.9}
# Height of the marks for the confidence set, below the data, as a share of the axes' height.
MARK_HEIGHT = 0.035
MARK_MARGIN = 0.09


def draw_panel(axes: "Axes", panel: Panel) -> None:
    """Draw a panel over w_p: points with intervals, fitted lines, and the best PLW."""
    _frame(axes, panel)
    series = _drawable(panel)
    for index, one in enumerate(series):
        style = _style(index)
        shift = (index - (len(series) - 1) / 2) * SERIES_SHIFT
        _draw_line(axes, one, style, is_only=len(series) == 1)
        _draw_points(axes, one, index, shift=shift, is_within_seeds=panel.is_within_seeds)
    _draw_untuned(axes, panel)
    if panel.best is not None:
        low, high = axes.get_ylim()
        axes.set_ylim(low - MARK_MARGIN * (high - low), high)
        _draw_best(axes, panel.best, panel)
    axes.set_ylabel(_value_label(panel), parse_math=False)
    axes.set_xlabel("prompt loss weight (axis in $w_p$ = PLW$^{0.301}$)")
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.8)
    axes.set_xlim(-0.04, 1.04)
    tried = sorted({point.prompt_loss_weight for point in panel.points})
    labelled = tick_weights(tried)
    axes.set_xticks([w_p(weight) for weight in labelled], [f"{weight:g}" for weight in labelled])
    if len(tried) <= MAX_MINOR_TICKS:
        axes.set_xticks([w_p(weight) for weight in tried], minor=True)
    _draw_legend(axes)


def _draw_legend(axes: "Axes") -> None:
    """Draw the legend below the panel, because the panel may have no free space inside.

    The first layout that fits is used. Widths are measured in the PNG's font, which is wide.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import ScaledTranslation

    figure = axes.get_figure(root=True)
    assert figure is not None
    renderer = FigureCanvasAgg(figure).get_renderer()
    below_labels = ScaledTranslation(0, -LEGEND_GAP_INCHES, figure.dpi_scale_trans)
    handles, labels = axes.get_legend_handles_labels()
    for columns, characters in LEGEND_LAYOUTS:
        wrapped = [fill(label, characters) for label in labels]
        legend = axes.legend(
            handles,
            wrapped,
            fontsize=8,
            frameon=False,
            ncols=columns,
            columnspacing=1.0,
            handlelength=1.6,
            handletextpad=0.6,
            loc="upper left",
            borderaxespad=0,
            bbox_to_anchor=(-0.02, 0),
            bbox_transform=axes.transAxes + below_labels,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        if legend.get_window_extent(renderer).width <= LEGEND_INCHES * figure.dpi:
            return


def legend_inches(axes: "Axes") -> float:
    """Return the height of a drawn panel's legend in inches; 0 if it has no legend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    legend, figure = axes.get_legend(), axes.get_figure(root=True)
    if legend is None or figure is None:
        return 0.0
    return float(
        legend.get_window_extent(FigureCanvasAgg(figure).get_renderer()).height / figure.dpi
    )


def draw_settings(axes: "Axes", panel: Panel) -> None:
    """Draw the settings side by side; if there are many, only the best observed ones."""
    _frame(axes, panel)
    points = _shown_settings(panel)
    for place, point in enumerate(points):
        (mark,) = axes.plot([point.value], [place], "o", color=BLUE, markersize=5)
        mark_points(mark, place)
        if point.ci_low is not None and point.ci_high is not None:
            axes.hlines(place, point.ci_low, point.ci_high, color=BLUE, linewidth=1.6)
    names = [_short(point) for point in points]
    axes.set_yticks(range(len(points)), names, fontsize=8)
    axes.set_xlabel(_value_label(panel))
    axes.grid(axis="x", color="#e3e5e8", linewidth=0.8)


def _shown_settings(panel: Panel) -> list[Point]:
    sign = -1 if panel.higher_is_better is False else 1
    return sorted(panel.points, key=lambda point: sign * point.value)[-MAX_CATEGORIES:]


def point_groups(panel: Panel, *, over_plw: bool) -> list[tuple[str, list[Point]]]:
    """Return label and points of each group in a drawn panel, in the order of `mark_points`."""
    if over_plw:
        return [(_legend_label(one.label), one.points) for one in _drawable(panel)]
    return [("", [point]) for point in _shown_settings(panel)]


def _short(point: Point) -> str:
    named = (f"{key.rpartition('.')[2]} {value}" for key, value in point.other_settings.items())
    return "\n".join(named)


def _legend_label(label: str) -> str:
    """Return a series' label without the prefixes of setting names, shortened to fit."""
    return shorten(_SECTION.sub("", label), LABEL_CHARACTERS, placeholder=" ...")


def _frame(axes: "Axes", panel: Panel) -> None:
    # Names come from user files: a dollar sign must not start a formula.
    title = fill(shorten(panel.title, 2 * TITLE_CHARACTERS, placeholder=" ..."), TITLE_CHARACTERS)
    axes.set_title(title, loc="left", fontweight="bold", parse_math=False)
    axes.set_axisbelow(True)


def _value_label(panel: Panel) -> str:
    """Return the label of the value axis: unit, reference, and which direction is better."""
    unit = f"{panel.unit} above own mean" if panel.is_relative else panel.unit
    seeds = "less seed level" if panel.is_within_seeds else ""
    direction = {True: "(higher is better)", False: "(lower is better)", None: ""}
    first = [f"{unit},", seeds] if panel.is_relative and seeds else [f"{unit} {seeds}".rstrip()]
    return "\n".join(filter(None, [*first, direction[panel.higher_is_better]]))


def _style(index: int) -> dict[str, Any]:
    return {
        "color": SERIES_COLOURS[index],
        "marker": MARKERS[index],
        "linestyle": LINES[index],
    }


def _drawable(panel: Panel) -> list[Series]:
    """Return the series, split by other settings; if there are too many, merge them into one."""
    found: list[Series] = []
    for series in panel.series:
        parts = _by_setting(series)
        found += parts if parts else [series]
    if len(found) <= len(SERIES_COLOURS):
        return found
    lines = [series for series in panel.series if series.cell is None]
    line = panel.series[0].line if len(panel.series) == 1 else None
    return [Series(label="", cell=None, points=panel.points, line=line), *lines]


def _by_setting(series: Series) -> list[Series]:
    """Split a cell's points by the other searched settings.

    The line fitted to all points becomes a separate series.
    """
    groups: dict[str, list[Point]] = {}
    for point in series.points:
        groups.setdefault(_short(point).replace("\n", ", "), []).append(point)
    if len(groups) < 2:
        return []
    # The points' settings include those in the cell's label.
    base = series.label.partition(",")[0] if series.label and " " in series.label else ""
    is_setting = any(key in series.label for p in series.points for key in p.other_settings)
    prefix = f"{base}, " if base and not is_setting else ""
    parts = [
        Series(label=f"{prefix}{label}", cell=series.cell, points=points)
        for label, points in groups.items()
    ]
    if series.line is None:
        return parts
    return [*parts, Series(label=f"{prefix}all settings", cell=None, points=[], line=series.line)]


def _draw_line(axes: "Axes", series: Series, style: dict[str, Any], *, is_only: bool) -> None:
    line = series.line
    if line is None:
        return
    name = METHOD_NAMES[line.method]
    if not is_only:
        name = "_" if series.points else f"{name}, {_legend_label(series.label)}"
    elif line.is_adjusted:
        name += ", adjusted for the learning rate (points are not)"
    axes.plot(
        line.w_p,
        line.value,
        label=name,
        color=style["color"],
        linestyle=METHOD_LINES[line.method] if is_only else style["linestyle"],
        linewidth=METHOD_WIDTHS[line.method],
    )
    # With means, the points already show the intervals.
    if not series.points or (is_only and line.method != "means"):
        _draw_band(axes, line, style["color"])


def _draw_band(axes: "Axes", line: Line, color: str) -> None:
    """Draw the confidence band of a curve; for means, draw an interval at each tried weight."""
    if line.low is None or line.high is None:
        return
    if line.method == "means":
        label = "95% interval of each mean"
        axes.vlines(line.w_p, line.low, line.high, color=color, linewidth=1.2, label=label)
        return
    label = "95% band of its shape"
    axes.fill_between(
        line.w_p, line.low, line.high, color=color, alpha=0.13, linewidth=0, label=label
    )


def _draw_best(axes: "Axes", best: Best, panel: Panel) -> None:
    """Mark the confidence set and the estimated best PLW at the bottom of the panel.

    The set is drawn as bars for a curve, and as marks if only tried weights are compared.
    """
    mark: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "color": "black"}
    is_of_means = bool(best.tied_plws)
    several = "confidence set" if len(best.pieces) > 1 else "interval"
    label = f"95% {several} of the best PLW"
    for number, (low, high) in enumerate(best.pieces):
        axes.plot(
            [w_p(low), w_p(high)],
            [MARK_HEIGHT, MARK_HEIGHT],
            linewidth=1 if is_of_means else 4,
            marker="|" if low == high else "",
            solid_capstyle="butt",
            label="_" if number or is_of_means else label,
            **mark,
        )
    mark["linestyle"] = "none"
    if is_of_means:
        places = [w_p(plw) for plw in best.tied_plws]
        label = "weights that may be best (95%)"
        axes.plot(
            places, [MARK_HEIGHT] * len(places), marker="s", markersize=4, label=label, **mark
        )
    if best.plw is None:
        return
    axes.plot(
        [w_p(best.plw)],
        [MARK_HEIGHT],
        marker="d",
        markersize=8,
        markerfacecolor="white",
        clip_on=False,
        label=_best_label(best, panel),
        **mark,
    )


def _best_label(best: Best, panel: Panel) -> str:
    """Return text such as `best: 0.21 (nearest tried: 0.25)`."""
    assert best.plw is not None
    if best.tied_plws:
        extreme = "lowest" if panel.higher_is_better is False else "highest"
        return f"{extreme} mean: PLW {format_tried_plw(best.plw)}"
    if best.plw == best.nearest_plw:
        return f"best PLW: {format_tried_plw(best.plw)}"
    return f"best: {format_plw(best.plw)} (nearest tried: {format_tried_plw(best.nearest_plw)})"


def _draw_untuned(axes: "Axes", panel: Panel) -> None:
    """Draw the untuned model as a dotted line, or only as a legend entry if far from the points."""
    if panel.untuned is None:
        return
    untuned = panel.untuned.value
    ends = [end for p in panel.points for end in (p.value, p.ci_low, p.ci_high) if end is not None]
    low, high = min(ends), max(ends)
    max_distance = FAR_OFF * (high - low)
    line: dict[str, Any] = {"color": ORANGE, "linestyle": ":", "linewidth": 1.6}
    if low - max_distance <= untuned <= high + max_distance or low == high:
        axes.axhline(untuned, label="untuned model", **line)
        return
    place = "above" if untuned > high else "below"
    label = f"untuned: {panel.format(untuned)} ({place} panel)"
    axes.plot([], [], label=label, **line)


def _draw_points(
    axes: "Axes", series: Series, index: int, *, shift: float, is_within_seeds: bool
) -> None:
    style = _style(index)
    points = series.points
    if not points:
        return
    is_single = len(points) == sum(len(point.seeds) for point in points)
    (marks,) = axes.plot(
        [point.w_p + shift for point in points],
        [point.value for point in points],
        linestyle="none",
        color=style["color"],
        marker=style["marker"],
        markersize=5,
        label=_legend_label(series.label or ("trials" if is_single else "mean of seeds")),
    )
    mark_points(marks, index)
    with_interval = [point for point in points if point.ci_low is not None]
    intervals = {point.interval for point in with_interval}
    kind = intervals.pop() if len(intervals) == 1 else None
    over = {"seeds": "within seeds" if is_within_seeds else "over seeds", "items": "over items"}
    label = f"95% interval {over[kind]}" if kind else "95% interval"
    if label in axes.get_legend_handles_labels()[1]:
        label = "_"
    axes.vlines(
        [point.w_p + shift for point in with_interval],
        [point.ci_low for point in with_interval if point.ci_low is not None],
        [point.ci_high for point in with_interval if point.ci_high is not None],
        color=style["color"],
        linewidth=1.6,
        label=label if with_interval else "_",
    )


def tick_weights(weights: Sequence[float]) -> list[float]:
    """Return the PLWs to label: those tried, and landmarks that do not overlap them."""
    chosen: list[float] = []
    for weight in (0.0, 1.0, *sorted(set(weights)), *LANDMARKS):
        if all(abs(w_p(weight) - w_p(other)) >= _label_gap(weight, other) for other in chosen):
            chosen.append(weight)
    return sorted(chosen)


def _label_gap(one: float, other: float) -> float:
    """Return the minimum distance on the w_p axis at which two tick labels do not overlap."""
    return LABEL_GAP + CHARACTER_WIDTH * (len(f"{one:g}") + len(f"{other:g}")) / 2
