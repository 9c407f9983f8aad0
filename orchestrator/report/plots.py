"""Pictures of what was measured over PLW: a file for each panel, and one of the answer's panels.

Figures are built without pyplot, which keeps global state and may look for a display.
"""

import io
from collections.abc import Sequence
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
# Height of a legend that the panels have room for as they are.
LEGEND_INCLUDED = 0.7
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


def panel_svg(panel: Panel) -> bytes:
    """The picture of one panel over PLW, as SVG."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        return _rendered(_figure([panel], over_plw=True), "svg")


def _write(panels: Sequence[Panel], stem: Path, kinds: Sequence[str], over_plw: bool) -> Path:
    return save_figure(_figure(panels, over_plw=over_plw), stem, kinds)


def _figure(panels: Sequence[Panel], *, over_plw: bool) -> "Figure":
    """The panels in one figure."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    width, height = PANEL_INCHES
    figure = new_figure(width * columns, height * rows)
    draw = draw_panel if over_plw else draw_settings
    drawn = [figure.add_subplot(rows, columns, index + 1) for index in range(len(panels))]
    for axes, panel in zip(drawn, panels, strict=True):
        draw(axes, panel)
    # Legends take room below, and not from the axes.
    legend = max(legend_inches(axes) for axes in drawn)
    figure.set_size_inches(width * columns, (height + max(0.0, legend - LEGEND_INCLUDED)) * rows)
    return figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of that many inches, which is drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", stem: Path, kinds: Sequence[str] = ("svg", "png")) -> Path:
    """Write the figure as `<stem>.<kind>`, each whole or not at all; returns the SVG's path."""
    for kind in kinds:
        _replace(stem.with_name(f"{stem.name}.{kind}"), _rendered(figure, kind))
    return stem.with_name(stem.name + ".svg")


def _rendered(figure: "Figure", kind: str) -> bytes:
    options: dict[str, Any] = {"png": {"dpi": PNG_DPI}, "svg": {"metadata": {"Date": None}}}
    buffer = io.BytesIO()
    # A label may be wider than the layout expects.
    figure.savefig(buffer, format=kind, bbox_inches="tight", **options[kind])
    return buffer.getvalue()


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
