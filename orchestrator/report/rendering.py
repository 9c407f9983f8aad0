"""Render the templates of the pages, and embed plots in them."""

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.analysis.findings import Panel
from orchestrator.report.hover_points import hover_points
from orchestrator.report.log_odds import in_log_odds
from orchestrator.report.panel_drawing import point_groups
from orchestrator.report.plots import panel_svg

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
# Maximum number of settings shown. Longer tables are cut; the JSON has all rows.
MAX_SETTINGS_SHOWN = 60


def embed_plots(
    panels: Sequence[Panel], svgs: Mapping[str, bytes], *, over_plw: bool = True
) -> list[dict[str, Any]]:
    """Return title, alternative text, data and hover points of each drawn panel.

    `log_odds` is the same for the plot on that scale, of the panels of verdicts in points; else
    None.
    """
    found: list[dict[str, Any]] = []
    for panel in panels:
        if panel.id not in svgs:
            continue
        other = in_log_odds(panel) if panel.kind == "answer" and over_plw else None
        found.append(
            _embedded(panel, svgs[panel.id], over_plw=over_plw)
            | {"log_odds": other and _embedded(other, panel_svg(other), over_plw=True)}
        )
    return found


def _embedded(panel: Panel, svg: bytes, *, over_plw: bool) -> dict[str, Any]:
    return {
        "title": panel.title,
        "alt": alt_text(panel),
        "data": base64.b64encode(svg).decode(),
        "points": hover_points(panel, point_groups(panel, over_plw=over_plw), svg),
    }


def alt_text(panel: Panel) -> str:
    """Return a panel's values as text."""
    values = [
        f"{f'{series.label}, ' if series.label else ''}{point.label}: {panel.describe(point)}"
        for series in panel.series
        for point in series.points
    ]
    if len(values) > MAX_SETTINGS_SHOWN:
        values = [f"{len(values)} settings; plw report --json lists them"]
    untuned = [f"untuned: {panel.describe(panel.untuned)}"] if panel.untuned else []
    return f"{panel.title} over prompt loss weight. {'; '.join([*values, *untuned])}."


def _markdown(value: object) -> str:
    """Escape text for Markdown, so that it cannot become markup or break out of a table cell."""
    text = " ".join(str(value).split())
    for character in "\\`*_[]|<>":
        text = text.replace(character, f"\\{character}")
    return text


@cache
def templates() -> "Environment":
    """Return the template environment, with the filter `md` to escape text for Markdown."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = _markdown
    return environment
