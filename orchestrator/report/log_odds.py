"""A panel of shares on the scale of log odds, which the published study used for its fit."""

import math

from orchestrator.analysis.findings import Estimate, Line, Panel, Point

POINTS = "points"
UNIT = "log odds"


def in_log_odds(panel: Panel) -> Panel | None:
    """Return the panel with ln(p / (1 - p)) for each value and interval end p.

    The panel's values are points, 100 p. None if it has another unit, is relative to a mean, or has
    a value or interval end at or beyond 0 or 100. A line, band or untuned model that reaches these
    is left out.
    """
    if panel.unit != POINTS or panel.is_relative:
        return None
    seeds = [value for point in panel.points for value in point.values]
    if not all(map(_is_inside, panel.points)) or not all(0 < value < 100 for value in seeds):
        return None
    series = [
        one.model_copy(
            update={
                "points": [_converted_point(point) for point in one.points],
                "line": _converted_line(one.line),
            }
        )
        for one in panel.series
    ]
    untuned = panel.untuned
    if untuned is not None:
        untuned = _converted(untuned) if _is_inside(untuned) else None
    update = {"unit": UNIT, "series": series, "untuned": untuned}
    return panel.model_copy(update=update)


def _is_inside(one: Estimate) -> bool:
    return all(0 < end < 100 for end in (one.value, one.ci_low, one.ci_high) if end is not None)


def _log_odds(points: float) -> float:
    return math.log(points / (100 - points))


def _converted(estimate: Estimate) -> Estimate:
    ends = {
        name: None if end is None else _log_odds(end)
        for name, end in (("ci_low", estimate.ci_low), ("ci_high", estimate.ci_high))
    }
    return estimate.model_copy(update={"value": _log_odds(estimate.value), **ends})


def _converted_point(point: Point) -> Point:
    converted = _converted(point)
    assert isinstance(converted, Point)
    return converted.model_copy(update={"values": [_log_odds(value) for value in point.values]})


def _converted_line(line: Line | None) -> Line | None:
    if line is None or not all(0 < value < 100 for value in line.value):
        return None
    low, high = line.low, line.high
    if low is None or high is None or not all(0 < end < 100 for end in (*low, *high)):
        low = high = None
    return line.model_copy(
        update={
            "value": [_log_odds(value) for value in line.value],
            "low": None if low is None else [_log_odds(end) for end in low],
            "high": None if high is None else [_log_odds(end) for end in high],
        }
    )
