"""What the pages have in common: templates, and pictures that stand inside the page."""

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.analysis.findings import Panel

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
# More lines than this no reader compares; the JSON has them all.
MAX_SETTINGS_TOLD = 60


def pictures(panels: Sequence[Panel], svgs: Mapping[str, bytes]) -> list[dict[str, str]]:
    """What the templates show of each panel that was drawn."""
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
    """What a panel shows, in words."""
    own = [
        f"{f'{series.label}, ' if series.label else ''}{point.label}: {panel.describe(point)}"
        for series in panel.series
        for point in series.points
    ]
    if len(own) > MAX_SETTINGS_TOLD:
        own = [f"{len(own)} settings, which plw report --json lists"]
    untuned = [f"untuned: {panel.describe(panel.untuned)}"] if panel.untuned else []
    return f"{panel.title} over prompt loss weight. {'; '.join([*own, *untuned])}."


def _markdown(value: object) -> str:
    """Text that cannot become markup, or break out of a table cell, in Markdown."""
    text = " ".join(str(value).split())
    for character in "\\`*_[]|<>":
        text = text.replace(character, f"\\{character}")
    return text


@cache
def templates() -> "Environment":
    """The templates of the pages, with the filter `md` for text in Markdown."""
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
