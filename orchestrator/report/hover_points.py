"""Positions of a plot's points, for elements of the page that show their values.

The plots stay images, so that a page works without scripts. Each group of points in the SVG file
has an id, which `mark_points` sets when it is drawn.
"""

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from orchestrator.analysis.findings import Panel, Point

_SVG = "{http://www.w3.org/2000/svg}"
_ID = "points-"
# A page with more elements is slow, and its points cannot be distinguished.
_MAX_POINTS = 300
_MAX_VALUES = 8


def mark_points(artist: Any, number: int) -> None:
    """Set the id of the points that a matplotlib artist draws, the `number`-th of their panel."""
    artist.set_gid(f"{_ID}{number}")


def hover_points(
    panel: Panel, groups: Sequence[tuple[str, Sequence[Point]]], svg: bytes
) -> list[dict[str, str]]:
    """Return text and position of each point of a plot; positions are shares of width and height.

    The result is empty if the plot does not show exactly the points of `groups`, or too many.

    Args:
        groups: label and points of each group, in the order of `mark_points`.
        svg: the plot.
    """
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    by_id = {group.get("id"): group for group in root.iter(f"{_SVG}g")}
    found: list[dict[str, str]] = []
    for number, (label, points) in enumerate(groups):
        group = by_id.get(f"{_ID}{number}")
        marks = [] if group is None else list(group.iter(f"{_SVG}use"))
        if len(marks) != len(points):
            return []
        for mark, point in zip(marks, points, strict=True):
            found.append(
                {
                    "text": point_text(panel, label, point),
                    "left": f"{100 * float(mark.attrib['x']) / width:.2f}%",
                    "top": f"{100 * float(mark.attrib['y']) / height:.2f}%",
                }
            )
    return found if len(found) <= _MAX_POINTS else []


def point_text(panel: Panel, label: str, point: Point) -> str:
    """Return label, value and interval of a point, and the values of its seeds."""
    prefix = f"{label}, " if label else ""
    text = f"{prefix}{point.label}: {panel.describe(point)}"
    if not 1 < len(point.values) <= _MAX_VALUES:
        return text
    seeds = ", ".join(
        f"{seed}: {panel.format(value)}"
        for seed, value in zip(point.seeds, point.values, strict=True)
    )
    return f"{text}; by seed {seeds}"
