"""Compare other regularisers with the prompt loss weight, if a sweep varied them."""

from collections.abc import Mapping, Sequence
from statistics import fmean, pvariance

from orchestrator.analysis.findings import Panel, Point, RegulariserComparison

# Settings of the paper's supplementary comparison, and their names.
REGULARISERS = {
    "optimizer.weight_decay": "weight decay",
    "optimizer.l2_sp": "L2-SP",
    "model.dropout": "dropout",
    "loss.label_smoothing": "label smoothing",
}


def compare_regularisers(panel: Panel, labels: Mapping[str, str]) -> list[RegulariserComparison]:
    """Compare each regulariser in the leading panel with no regulariser at the lowest PLW.

    The reference has the same base and the same other settings. The list is empty if no regulariser
    was searched.
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
            references.setdefault((base, _non_regulariser_settings(point)), point)
    return [
        _compared(point, base, references.get((base, _non_regulariser_settings(point))))
        for base, point in sorted(found, key=lambda each: (each[0], _order(each[1])))
    ]


def _non_regulariser_settings(point: Point) -> tuple[tuple[str, str], ...]:
    return tuple(
        (key, str(value))
        for key, value in sorted(point.other_settings.items())
        if key not in REGULARISERS
    )


def _order(point: Point) -> tuple[list[tuple[str, float]], float]:
    strengths = [(key, float(point.other_settings.get(key) or 0)) for key in REGULARISERS]
    return strengths, point.prompt_loss_weight


def _label(point: Point) -> str:
    active = [
        f"{name} {point.other_settings[key]}"
        for key, name in REGULARISERS.items()
        if point.other_settings.get(key)
    ]
    rest = [f"{key} {value}" for key, value in _non_regulariser_settings(point)]
    return ", ".join([*(active or ["none"]), *rest])


def _compared(point: Point, base: str, reference: Point | None) -> RegulariserComparison:
    difference = interval = None
    if reference is not None and reference is not point:
        difference = fmean(point.values) - fmean(reference.values)
        interval = _welch_interval(point.values, reference.values)
    return RegulariserComparison(
        label=_label(point),
        base=base,
        prompt_loss_weight=point.prompt_loss_weight,
        estimate=point,
        num_seeds=len(point.seeds),
        difference=difference,
        difference_low=None if interval is None else interval[0],
        difference_high=None if interval is None else interval[1],
    )


def _welch_interval(one: Sequence[float], other: Sequence[float]) -> tuple[float, float] | None:
    """Return Welch's 95% interval of a difference of means.

    Return None if a sample has fewer than two values, or if neither has any variance.
    """
    if min(len(one), len(other)) < 2 or (pvariance(one) == 0 == pvariance(other)):
        return None
    # scipy.stats takes a second to import; only sweeps over regularisers need it.
    from scipy.stats import ttest_ind

    interval = ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    return float(interval.low), float(interval.high)
