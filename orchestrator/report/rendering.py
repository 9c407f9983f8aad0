"""Render the templates of the pages, and embed plots in them."""

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.analysis.findings import Panel

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
# Maximum number of settings shown. Longer tables are cut; the JSON has all rows.
MAX_SETTINGS_SHOWN = 60


def embed_plots(panels: Sequence[Panel], svgs: Mapping[str, bytes]) -> list[dict[str, str]]:
    """Return the title, alternative text and data of each drawn panel."""
    return [
        {
            "title": panel.title,
            "alt": alt_text(panel),
            "data": base64.b64encode(svgs[panel.id]).decode(),
        }
        for panel in panels
        if panel.id in svgs
    ]


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
