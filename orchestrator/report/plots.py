"""What was measured over PLW, drawn with matplotlib: a panel for each, and the answer's in one.

Series differ in marker and line style as well as in colour. Figures are built without pyplot,
which keeps global state and may look for a display.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from orchestrator.analysis.findings import Panel, Point, Series
from orchestrator.foundation.plw_scale import w_p

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE = "#1f5fa8"
ORANGE = "#b5541c"
GREY = "#5f6368"
SERIES_COLOURS = (BLUE, "#8a3ffc", "#00796b", "#a0215f", "#6b5900", "#37474f")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
MAX_CATEGORIES = 30
# Of a label in a legend of two columns, and of any at all.
LEGEND_CHARACTERS = 34
LABEL_CHARACTERS = 70
_SECTION = re.compile(r"\b[a-z_]+\.(?=[a-z_]+ )")
PANEL_INCHES = (5.0, 3.7)
PNG_DPI = 150
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
ALL_PANELS = "scores"
# Any, because matplotlib types the keys as one Literal of all its settings.
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    # Text stays text: smaller files, and a screen reader or a search finds it.
    "svg.fonttype": "none",
    "svg.hashsalt": "plw",
}


def write_plots(panels: Sequence[Panel], folder: Path, *, over_plw: bool = True) -> dict[str, Path]:
    """Write `<panel>.svg` for each panel and `scores.svg` for the answer's, with PNGs beside them.

    Returns the SVG paths by the panels' ids, with `scores` for the picture of all of the answer;
    nothing is written, and the result is empty, where nothing was scored. Benchmarks get no PNG.

    Args:
        over_plw: False draws settings side by side, where PLW was the same in all.
    """
    from matplotlib import rc_context

    drawn = [panel for panel in panels if panel.points]
    if not drawn:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    with rc_context(STYLE):
        for panel in drawn:
            kinds = ("svg",) if panel.kind == "benchmark" else ("svg", "png")
            paths[panel.id] = _write([panel], folder / file_stem(panel.id), kinds, over_plw)
        answers = [panel for panel in drawn if panel.kind == "answer"]
        if answers:
            paths[ALL_PANELS] = _write(answers, folder / ALL_PANELS, ("svg", "png"), over_plw)
    return paths


def file_stem(panel_id: str) -> str:
    """The panel's id with only what is safe in a file name."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in panel_id)


def _write(panels: Sequence[Panel], stem: Path, kinds: Sequence[str], over_plw: bool) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    draw = draw_panel if over_plw else draw_settings
    for index, panel in enumerate(panels):
        draw(figure.add_subplot(rows, columns, index + 1), panel)
    options: dict[str, Any] = {"png": {"dpi": PNG_DPI}, "svg": {"metadata": {"Date": None}}}
    for kind in kinds:
        buffer = io.BytesIO()
        # A label may be wider than the layout was told.
        figure.savefig(buffer, format=kind, bbox_inches="tight", **options[kind])
        _replace(stem.with_name(f"{stem.name}.{kind}"), buffer.getvalue())
    return stem.with_name(stem.name + ".svg")


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def draw_panel(axes: "Axes", panel: Panel) -> None:
    """A panel over w_p: points with 95% error bars, fitted curves, the best PLW's interval."""
    _frame(axes, panel)
    series = _drawable(panel)
    for index, one in enumerate(series):
        look = _look(index)
        shift = (index - (len(series) - 1) / 2) * SERIES_SHIFT
        _draw_line(axes, one, look, is_only=len(series) == 1)
        _draw_points(axes, one, look, shift=shift)
    _draw_best(axes, panel)
    _draw_untuned(axes, panel)
    axes.set_ylabel(_value_label(panel))
    axes.set_xlabel("prompt loss weight (axis in $w_p$ = PLW$^{0.301}$)")
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.8)
    axes.set_xlim(-0.04, 1.04)
    tried = sorted({point.prompt_loss_weight for point in panel.points})
    labelled = tick_weights(tried)
    axes.set_xticks([w_p(weight) for weight in labelled], [f"{weight:g}" for weight in labelled])
    if len(tried) <= MAX_MINOR_TICKS:
        axes.set_xticks([w_p(weight) for weight in tried], minor=True)
    # Below the panel: inside it there may be no place without a point.
    names = [name for name in axes.get_legend_handles_labels()[1] if len(name) > LEGEND_CHARACTERS]
    axes.legend(
        fontsize=8,
        frameon=False,
        ncols=1 if names else 2,
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.2),
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
    axes.set_title(panel.title, loc="left", fontweight="bold")
    axes.set_axisbelow(True)


def _value_label(panel: Panel) -> str:
    unit = f"{panel.unit} above own mean" if panel.is_relative else panel.unit
    direction = {True: "higher is better", False: "lower is better", None: ""}
    said = direction[panel.higher_is_better]
    return f"{unit}\n({said})" if said else unit


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
    everything = Series(label="", cell=None, points=panel.points, line=None)
    return [everything, *lines]


def _by_setting(series: Series) -> list[Series]:
    """A cell's points by what else was searched in it, the fitted line with the first of them."""
    groups: dict[str, list[Point]] = {}
    for point in series.points:
        groups.setdefault(_short(point).replace("\n", ", "), []).append(point)
    if len(groups) < 2:
        return []
    # The cell's own settings, which its label has, are in the points' as well.
    base = series.label.partition(",")[0] if series.label and " " in series.label else ""
    is_setting = any(key in series.label for p in series.points for key in p.other_settings)
    prefix = f"{base}, " if base and not is_setting else ""
    return [
        Series(
            label=f"{prefix}{label}",
            cell=series.cell,
            points=points,
            line=series.line if index == 0 else None,
        )
        for index, (label, points) in enumerate(groups.items())
    ]


def _draw_line(axes: "Axes", series: Series, look: dict[str, Any], *, is_only: bool) -> None:
    line = series.line
    if line is None:
        return
    name = (
        "fitted curve"
        if is_only
        else f"fitted, {_legend_label(series.label)}"
        if not series.points
        else "_"
    )
    style = {"color": look["color"], "linestyle": look["linestyle"], "linewidth": 1.4}
    axes.plot(line.w_p, line.value, label=name, **style)
    if line.low is not None and line.high is not None and (is_only or not series.points):
        axes.fill_between(
            line.w_p,
            line.low,
            line.high,
            color=look["color"],
            alpha=0.13,
            linewidth=0,
            label="95% band of its shape",
        )


def _draw_best(axes: "Axes", panel: Panel) -> None:
    """A thick bar at the foot of the panel: the PLWs not ruled out as the best, and the best."""
    if panel.best_plw is None or not panel.pieces:
        return
    foot = axes.get_xaxis_transform()
    for number, (low, high) in enumerate(panel.pieces):
        label = "_" if number else "95% interval of the best PLW"
        axes.plot(
            [w_p(low), w_p(high)],
            [0.02, 0.02],
            transform=foot,
            color="black",
            linewidth=4,
            solid_capstyle="butt",
            label=label,
        )
    axes.plot(
        [w_p(panel.best_plw)],
        [0.02],
        transform=foot,
        color="black",
        marker="d",
        markersize=8,
        linestyle="none",
        label="best PLW, fitted",
    )


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
    label = f"untuned model: {panel.format(untuned)}, {place} the panel"
    axes.plot([], [], label=label, **line)


def _draw_points(axes: "Axes", series: Series, look: dict[str, Any], *, shift: float) -> None:
    points = series.points
    if not points:
        return
    with_interval = [point for point in points if point.ci_low is not None]
    intervals = {point.interval for point in with_interval}
    over = "seeds" if intervals == {"seeds"} else "items" if intervals == {"items"} else ""
    name = (
        series.label or "trials"
        if len(points) == sum(len(p.seeds) for p in points)
        else (series.label or "mean of seeds")
    )
    axes.plot(
        [point.w_p + shift for point in points],
        [point.value for point in points],
        linestyle="none",
        color=look["color"],
        marker=look["marker"],
        markersize=5,
        label=_legend_label(name),
    )
    axes.vlines(
        [point.w_p + shift for point in with_interval],
        [point.ci_low for point in with_interval if point.ci_low is not None],
        [point.ci_high for point in with_interval if point.ci_high is not None],
        color=look["color"],
        linewidth=1.6,
        label="_" if series.label or not over else f"95% interval over {over}",
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
