"""Score over PLW, drawn with matplotlib: one panel per measure, and all panels in one picture.

Figures are built without pyplot, which keeps global state and may look for a display.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.findings import Measure, Point, w_p

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE = "#1f5fa8"
ORANGE = "#b5541c"
GREY = "#5f6368"
SERIES_COLOURS = (BLUE, "#8a3ffc", "#00796b", "#a0215f", "#6b5900", "#37474f")
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


def write_plots(measures: Sequence[Measure], folder: Path) -> dict[str, Path]:
    """Write `<measure>.svg` and `.png` for each measure and `scores.png|svg` for all.

    Returns the SVG paths by the measures' ids, with `scores` for the picture of all panels; nothing
    is written, and the result is empty, where nothing was scored.
    """
    from matplotlib import rc_context

    drawn = [measure for measure in measures if measure.points]
    if not drawn:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    with rc_context(STYLE):
        for measure in drawn:
            paths[measure.id] = _write([measure], folder / file_stem(measure.id))
        paths[ALL_PANELS] = _write(drawn, folder / ALL_PANELS)
    return paths


def file_stem(measure_id: str) -> str:
    """The measure's id with only what is safe in a file name."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in measure_id)


def _write(measures: Sequence[Measure], stem: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(2, len(measures))
    rows = -(-len(measures) // columns)
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for index, measure in enumerate(measures):
        draw_panel(figure.add_subplot(rows, columns, index + 1), measure)
    for suffix, options in ((".png", {"dpi": PNG_DPI}), (".svg", {"metadata": {"Date": None}})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix[1:], **options)
        _replace(stem.with_name(stem.name + suffix), buffer.getvalue())
    return stem.with_name(stem.name + ".svg")


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def draw_panel(axes: "Axes", measure: Measure) -> None:
    """One measure: points with 95% error bars over w_p, the untuned model as a dashed line."""
    axes.set_title(measure.title, loc="left", fontweight="bold")
    series = _series(measure.points)
    best = measure.best.value if measure.best else None
    rings: list[tuple[float, float]] = []
    for index, (label, points) in enumerate(series):
        shift = (index - (len(series) - 1) / 2) * SERIES_SHIFT
        _draw_points(axes, points, SERIES_COLOURS[index], label, shift=shift)
        rings += [(point.w_p + shift, point.value) for point in points if point.value == best]
    _draw_untuned(axes, measure)
    if rings:
        axes.plot(
            [place for place, _ in rings],
            [value for _, value in rings],
            marker="o",
            markersize=11,
            markerfacecolor="none",
            markeredgecolor="black",
            linestyle="none",
            label="best, named" if measure.is_named else "best observed",
        )
    direction = "higher is better" if measure.higher_is_better else "lower is better"
    axes.set_ylabel(f"{measure.unit}\n({direction})" if measure.unit else direction)
    axes.set_xlabel("prompt loss weight (axis in $w_p$ = PLW$^{0.301}$)")
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlim(-0.04, 1.04)
    tried = sorted({point.prompt_loss_weight for point in measure.points})
    labelled = tick_weights(tried)
    axes.set_xticks([w_p(weight) for weight in labelled], [f"{weight:g}" for weight in labelled])
    if len(tried) <= MAX_MINOR_TICKS:
        axes.set_xticks([w_p(weight) for weight in tried], minor=True)
    # Below the panel: inside it there may be no place without a point.
    axes.legend(fontsize=8, frameon=False, ncols=2, loc="upper left", bbox_to_anchor=(-0.02, -0.2))


def _draw_untuned(axes: "Axes", measure: Measure) -> None:
    """A dashed line, or a line of text where it would squeeze what tells the PLWs apart."""
    if measure.untuned is None:
        return
    untuned = measure.untuned.value
    ends = [
        end for p in measure.points for end in (p.value, p.ci_low, p.ci_high) if end is not None
    ]
    low, high = min(ends), max(ends)
    room = FAR_OFF * (high - low)
    line: dict[str, Any] = {"color": ORANGE, "linestyle": "--", "linewidth": 1.2}
    if low - room <= untuned <= high + room or low == high:
        axes.axhline(untuned, label="untuned model", **line)
        return
    place = "above" if untuned > high else "below"
    label = f"untuned model: {measure.format(untuned)}, {place} the panel"
    axes.plot([], [], label=label, **line)


def _series(points: Sequence[Point]) -> list[tuple[str, list[Point]]]:
    """The points by their other searched settings; one series where these are all different."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        label = ", ".join(
            f"{key.rpartition('.')[2]} {value}" for key, value in point.other_settings.items()
        )
        groups.setdefault(label, []).append(point)
    if len(groups) > len(SERIES_COLOURS):
        return [("", list(points))]
    return list(groups.items())


def _draw_points(
    axes: "Axes", points: Sequence[Point], colour: str, label: str, *, shift: float
) -> None:
    with_interval = [point for point in points if point.ci_low is not None]
    axes.plot(
        [point.w_p + shift for point in points],
        [point.value for point in points],
        "o",
        color=colour,
        markersize=5,
        label=label or "_",
    )
    intervals = {point.interval for point in with_interval}
    over = "seeds" if intervals == {"seeds"} else "items" if intervals == {"items"} else ""
    axes.vlines(
        [point.w_p + shift for point in with_interval],
        [point.ci_low for point in with_interval if point.ci_low is not None],
        [point.ci_high for point in with_interval if point.ci_high is not None],
        color=colour,
        linewidth=1.6,
        label="_" if label else f"95% interval{f' over {over}' if over else ''}",
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
