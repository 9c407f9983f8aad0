"""How the other regularisers do beside the prompt loss weight, where they were swept."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, variance

from orchestrator.analysis.findings import Compared, Panel, Point

# The paper's supplementary comparison, and what each is called.
REGULARISERS = {
    "optimizer.weight_decay": "weight decay",
    "optimizer.distance_penalty": "distance penalty",
    "model.dropout": "dropout",
    "loss.label_smoothing": "label smoothing",
}


def compare_regularisers(panel: Panel, labels: Mapping[str, str]) -> list[Compared]:
    """The settings of regularisers in the leading panel, each against none at the lowest PLW.

    Empty where none was swept. The reference is of the same base and with the same other settings.
    """
    found = []
    for series in panel.series:
        found += [
            (series.cell[0], point)
            for point in series.points
            if series.cell is not None and set(REGULARISERS) & set(point.other_settings)
        ]
    references: dict[tuple[str, tuple[tuple[str, str], ...]], Point] = {}
    for base, point in sorted(found, key=lambda each: each[1].prompt_loss_weight):
        if not any(point.other_settings.get(key) for key in REGULARISERS):
            references.setdefault((base, _rest(point)), point)
    return [
        _compared(point, base, references.get((base, _rest(point))))
        for base, point in sorted(found, key=lambda each: (each[0], _order(each[1])))
    ]


def _rest(point: Point) -> tuple[tuple[str, str], ...]:
    return tuple(
        (key, str(value))
        for key, value in sorted(point.other_settings.items())
        if key not in REGULARISERS
    )


def _order(point: Point) -> tuple[list[tuple[str, float]], float]:
    own = [(key, float(point.other_settings.get(key) or 0)) for key in REGULARISERS]
    return own, point.prompt_loss_weight


def _label(point: Point) -> str:
    said = [
        f"{name} {point.other_settings[key]}"
        for key, name in REGULARISERS.items()
        if point.other_settings.get(key)
    ]
    rest = [f"{key} {value}" for key, value in _rest(point)]
    return ", ".join([*(said or ["none"]), *rest])


def _compared(point: Point, base: str, reference: Point | None) -> Compared:
    difference = half = None
    if reference is not None and reference is not point:
        difference = fmean(point.values) - fmean(reference.values)
        half = _welch_half_width(point.values, reference.values)
    return Compared(
        label=_label(point),
        base=base,
        prompt_loss_weight=point.prompt_loss_weight,
        estimate=point,
        num_seeds=len(point.seeds),
        difference=difference,
        difference_low=None if half is None or difference is None else difference - half,
        difference_high=None if half is None or difference is None else difference + half,
    )


def _welch_half_width(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Of the 95% interval of a difference of means; None where there is no spread to judge by.

    Source: Welch 1947, with Satterthwaite's degrees of freedom.
    """
    if min(len(one), len(other)) < 2:
        return None
    squares = [variance(values) / len(values) for values in (one, other)]
    if sum(squares) <= 0:
        return None
    from scipy.special import stdtrit

    parts = [
        square**2 / (len(values) - 1) for square, values in zip(squares, (one, other), strict=True)
    ]
    freedom = sum(squares) ** 2 / sum(parts)
    return float(stdtrit(freedom, 0.975)) * math.sqrt(sum(squares))
