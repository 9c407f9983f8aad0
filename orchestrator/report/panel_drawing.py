"""A panel of a report's plots, drawn with matplotlib.

Series differ in marker and line style as well as in colour.
"""

import re
from collections.abc import Sequence
from textwrap import fill, shorten
from typing import TYPE_CHECKING, Any

from orchestrator.analysis.findings import Best, Line, Panel, Point, Series
from orchestrator.foundation.plw_scale import w_p
from orchestrator.statistics.messages import plw_label, tried_label
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
# Columns of a legend, and characters of a line of its labels, from the first choice to the last.
LEGEND_LAYOUTS = ((2, 34), (2, 28), (1, 60), (1, 50), (1, 40))
# A legend begins at the axes, which leave this much of a panel to it.
LEGEND_INCHES = 4.2
LABEL_CHARACTERS = 90
# From the axes down to their legend: tick labels and the axis label.
LEGEND_GAP_INCHES = 0.52
# Of a line of a title; it has two at most.
TITLE_CHARACTERS = 40
_SECTION = re.compile(r"\b[a-z_]+\.(?=[a-z_]+ )")
PANEL_INCHES = (5.0, 3.7)
# On the w_p axis, whose width of 1.08 takes about 4 inches at 10 points.
CHARACTER_WIDTH = 0.024
LABEL_GAP = 0.015
LANDMARKS = (0.1, 0.01, 0.5, 0.001)
# Series tried at one PLW stand side by side, so that their error bars do not cover each other.
SERIES_SHIFT = 0.012
# More would be one black bar, and take matplotlib half a minute for 1,000 trials.
MAX_MINOR_TICKS = 100
# In spans of the points' intervals: an untuned model further off than this gets no line.
FAR_OFF = 1.5
METHOD_NAMES: dict[Method, str] = {
    "curve": "fitted curve",
    "assumed curve": "assumed parabola (untested)",
    "means": "means of tried weights, joined",
}
# Of several series the line style tells the series, of a single one what the line is.
METHOD_LINES: dict[Method, Any] = {"curve": "-", "assumed curve": "--", "means": (0, (2, 2))}
METHOD_WIDTHS: dict[Method, float] = {"curve": 1.4, "assumed curve": 1.4, "means": 0.9}
# Of the marks of the confidence set, in heights of the axes; below what is plotted.
FOOT = 0.035
FOOT_ROOM = 0.09


def draw_panel(axes: "Axes", panel: Panel) -> None:
    """A panel over w_p: points with 95% intervals, what verdicts rest on, and the best PLW."""
    _frame(axes, panel)
    series = _drawable(panel)
    for index, one in enumerate(series):
        look = _look(index)
        shift = (index - (len(series) - 1) / 2) * SERIES_SHIFT
        _draw_line(axes, one, look, is_only=len(series) == 1)
        _draw_points(axes, one, look, shift=shift, is_within_seeds=panel.is_within_seeds)
    _draw_untuned(axes, panel)
    if panel.best is not None:
        low, high = axes.get_ylim()
        axes.set_ylim(low - FOOT_ROOM * (high - low), high)
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
    """A legend below the panel (inside it there may be no place without a point), as wide at most.

    Of the layouts the first that fits is taken, measured in the font of the PNG, which is wide.
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
    """The height of the legend of a panel that was drawn; 0 where it has none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    legend, figure = axes.get_legend(), axes.get_figure(root=True)
    if legend is None or figure is None:
        return 0.0
    return float(
        legend.get_window_extent(FigureCanvasAgg(figure).get_renderer()).height / figure.dpi
    )


def draw_settings(axes: "Axes", panel: Panel) -> None:
    """The settings side by side, the best observed ones where there are many."""
    _frame(axes, panel)
    sign = -1 if panel.higher_is_better is False else 1
    points = sorted(panel.points, key=lambda point: sign * point.value)[-MAX_CATEGORIES:]
    for place, point in enumerate(points):
        axes.plot([point.value], [place], "o", color=BLUE, markersize=5)
        if point.ci_low is not None and point.ci_high is not None:
            axes.hlines(place, point.ci_low, point.ci_high, color=BLUE, linewidth=1.6)
    names = [_short(point) for point in points]
    axes.set_yticks(range(len(points)), names, fontsize=8)
    axes.set_xlabel(_value_label(panel))
    axes.grid(axis="x", color="#e3e5e8", linewidth=0.8)


def _short(point: Point) -> str:
    named = (f"{key.rpartition('.')[2]} {value}" for key, value in point.other_settings.items())
    return "\n".join(named)


def _legend_label(label: str) -> str:
    """A series' label without the sections of its settings, cut where no panel has room."""
    return shorten(_SECTION.sub("", label), LABEL_CHARACTERS, placeholder=" ...")


def _frame(axes: "Axes", panel: Panel) -> None:
    # Names come from anyone's files: a dollar sign in them begins no formula.
    title = fill(shorten(panel.title, 2 * TITLE_CHARACTERS, placeholder=" ..."), TITLE_CHARACTERS)
    axes.set_title(title, loc="left", fontweight="bold", parse_math=False)
    axes.set_axisbelow(True)


def _value_label(panel: Panel) -> str:
    """The unit, from where values are counted, and which direction is better."""
    unit = f"{panel.unit} above own mean" if panel.is_relative else panel.unit
    seeds = "less seed level" if panel.is_within_seeds else ""
    direction = {True: "(higher is better)", False: "(lower is better)", None: ""}
    first = [f"{unit},", seeds] if panel.is_relative and seeds else [f"{unit} {seeds}".rstrip()]
    return "\n".join(filter(None, [*first, direction[panel.higher_is_better]]))


def _look(index: int) -> dict[str, Any]:
    return {
        "color": SERIES_COLOURS[index],
        "marker": MARKERS[index],
        "linestyle": LINES[index],
    }


def _drawable(panel: Panel) -> list[Series]:
    """The series, further split by other settings; too many to tell apart become one."""
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
    """A cell's points by what else was searched in it, and the fitted line, which is of all."""
    groups: dict[str, list[Point]] = {}
    for point in series.points:
        groups.setdefault(_short(point).replace("\n", ", "), []).append(point)
    if len(groups) < 2:
        return []
    # The cell's own settings, which its label has, are in the points' as well.
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


def _draw_line(axes: "Axes", series: Series, look: dict[str, Any], *, is_only: bool) -> None:
    line = series.line
    if line is None:
        return
    name = METHOD_NAMES[line.method]
    if not is_only:
        name = "_" if series.points else f"{name}, {_legend_label(series.label)}"
    axes.plot(
        line.w_p,
        line.value,
        label=name,
        color=look["color"],
        linestyle=METHOD_LINES[line.method] if is_only else look["linestyle"],
        linewidth=METHOD_WIDTHS[line.method],
    )
    # With points the intervals of means are theirs.
    if not series.points or (is_only and line.method != "means"):
        _draw_band(axes, line, look["color"])


def _draw_band(axes: "Axes", line: Line, color: str) -> None:
    """The band of a curve; of means an interval at each tried weight."""
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
    """At the foot of the panel: the PLWs that may be the best, and the estimated best, if named.

    Bars where a curve tells them, marks of tried weights where only these are compared.
    """
    mark: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "color": "black"}
    is_of_means = bool(best.tied_plws)
    several = "confidence set" if len(best.pieces) > 1 else "interval"
    label = f"95% {several} of the best PLW"
    for number, (low, high) in enumerate(best.pieces):
        axes.plot(
            [w_p(low), w_p(high)],
            [FOOT, FOOT],
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
        axes.plot(places, [FOOT] * len(places), marker="s", markersize=4, label=label, **mark)
    if best.plw is None:
        return
    axes.plot(
        [w_p(best.plw)],
        [FOOT],
        marker="d",
        markersize=8,
        markerfacecolor="white",
        clip_on=False,
        label=_best_label(best, panel),
        **mark,
    )


def _best_label(best: Best, panel: Panel) -> str:
    """Such as `best: 0.21 (nearest tried: 0.25)`."""
    assert best.plw is not None
    if best.tied_plws:
        extreme = "lowest" if panel.higher_is_better is False else "highest"
        return f"{extreme} mean: PLW {tried_label(best.plw)}"
    if best.plw == best.nearest_plw:
        return f"best PLW: {tried_label(best.plw)}"
    return f"best: {plw_label(best.plw)} (nearest tried: {tried_label(best.nearest_plw)})"


def _draw_untuned(axes: "Axes", panel: Panel) -> None:
    """A dotted line, or a line of text where it would squeeze what tells the PLWs apart."""
    if panel.untuned is None:
        return
    untuned = panel.untuned.value
    ends = [end for p in panel.points for end in (p.value, p.ci_low, p.ci_high) if end is not None]
    low, high = min(ends), max(ends)
    room = FAR_OFF * (high - low)
    line: dict[str, Any] = {"color": ORANGE, "linestyle": ":", "linewidth": 1.6}
    if low - room <= untuned <= high + room or low == high:
        axes.axhline(untuned, label="untuned model", **line)
        return
    place = "above" if untuned > high else "below"
    label = f"untuned: {panel.format(untuned)} ({place} panel)"
    axes.plot([], [], label=label, **line)


def _draw_points(
    axes: "Axes", series: Series, look: dict[str, Any], *, shift: float, is_within_seeds: bool
) -> None:
    points = series.points
    if not points:
        return
    is_single = len(points) == sum(len(point.seeds) for point in points)
    axes.plot(
        [point.w_p + shift for point in points],
        [point.value for point in points],
        linestyle="none",
        color=look["color"],
        marker=look["marker"],
        markersize=5,
        label=_legend_label(series.label or ("trials" if is_single else "mean of seeds")),
    )
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
        color=look["color"],
        linewidth=1.6,
        label=label if with_interval else "_",
    )


def tick_weights(weights: Sequence[float]) -> list[float]:
    """The PLWs to label: those tried, and landmarks where there is room, never overprinting."""
    chosen: list[float] = []
    for weight in (0.0, 1.0, *sorted(set(weights)), *LANDMARKS):
        if all(abs(w_p(weight) - w_p(other)) >= _label_gap(weight, other) for other in chosen):
            chosen.append(weight)
    return sorted(chosen)


def _label_gap(one: float, other: float) -> float:
    """How far apart on the w_p axis two tick labels must be centred so as not to touch."""
    return LABEL_GAP + CHARACTER_WIDTH * (len(f"{one:g}") + len(f"{other:g}")) / 2
