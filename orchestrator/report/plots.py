"""Plot scores over PLW: one file per panel, and one file with all panels of the verdicts.

Figures are built without pyplot, which has global state and may need a display.
"""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.analysis.findings import Panel
from orchestrator.report.panel_drawing import (
    GREY,
    PANEL_INCHES,
    draw_panel,
    draw_settings,
    legend_inches,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 150
# Height of a legend that fits the default panel.
LEGEND_INCLUDED = 0.7
ALL_PANELS = "scores"
# Typed as Any, because matplotlib declares the keys as one Literal of all its settings.
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    # Text is not converted to paths, so files are smaller and the text is searchable and readable
    # by screen readers.
    "svg.fonttype": "none",
    "svg.hashsalt": "plw",
}


def write_plots(panels: Sequence[Panel], folder: Path, *, over_plw: bool = True) -> dict[str, Path]:
    """Write `<panel>.svg` for each panel and `scores.svg` for the panels of the verdicts.

    Each plot is also written as PNG, except those of benchmarks. If nothing was scored, nothing is
    written. Returns the SVG paths by panel id; the key `scores` is the combined plot.

    Args:
        over_plw: False draws settings side by side, for a constant PLW.
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


def panel_figures(panels: Sequence[Panel], *, over_plw: bool = True) -> "dict[str, Figure]":
    """Return a figure for each panel with points, by panel id, and `scores` for the verdicts.

    Notebooks show them without pyplot.
    """
    from matplotlib import rc_context

    drawn = [panel for panel in panels if panel.points]
    answers = [panel for panel in drawn if panel.kind == "answer"]
    groups = {panel.id: [panel] for panel in drawn} | ({ALL_PANELS: answers} if answers else {})
    with rc_context(STYLE):
        figures = {name: _figure(group, over_plw=over_plw) for name, group in groups.items()}
    for figure in figures.values():
        # IPython looks for this method; matplotlib adds it only once pyplot is imported.
        figure._repr_png_ = partial(_rendered, figure, "png")  # type: ignore[attr-defined]
    return figures


def file_stem(panel_id: str) -> str:
    """Return the panel's id with characters that are safe in a file name."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in panel_id)


def panel_svg(panel: Panel) -> bytes:
    """Return the plot of one panel over PLW as SVG."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        return _rendered(_figure([panel], over_plw=True), "svg")


def _write(panels: Sequence[Panel], stem: Path, kinds: Sequence[str], over_plw: bool) -> Path:
    return save_figure(_figure(panels, over_plw=over_plw), stem, kinds)


def _figure(panels: Sequence[Panel], *, over_plw: bool) -> "Figure":
    """Return one figure with the panels."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    width, height = PANEL_INCHES
    figure = new_figure(width * columns, height * rows)
    draw = draw_panel if over_plw else draw_settings
    drawn = [figure.add_subplot(rows, columns, index + 1) for index in range(len(panels))]
    for axes, panel in zip(drawn, panels, strict=True):
        draw(axes, panel)
    # Legends extend the figure below and do not shrink the axes.
    legend = max(legend_inches(axes) for axes in drawn)
    figure.set_size_inches(width * columns, (height + max(0.0, legend - LEGEND_INCLUDED)) * rows)
    return figure


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of the given size in inches; it needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", stem: Path, kinds: Sequence[str] = ("svg", "png")) -> Path:
    """Write the figure as `<stem>.<kind>` atomically; returns the SVG's path."""
    for kind in kinds:
        _replace(stem.with_name(f"{stem.name}.{kind}"), _rendered(figure, kind))
    return stem.with_name(stem.name + ".svg")


def _rendered(figure: "Figure", kind: str) -> bytes:
    options: dict[str, Any] = {"png": {"dpi": PNG_DPI}, "svg": {"metadata": {"Date": None}}}
    buffer = io.BytesIO()
    # Labels may be wider than the layout expects.
    figure.savefig(buffer, format=kind, bbox_inches="tight", **options[kind])
    return buffer.getvalue()


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
