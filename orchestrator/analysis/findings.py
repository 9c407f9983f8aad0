"""Define the data types of a sweep's findings, which serialize to JSON."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from evals.config import Group
from orchestrator.statistics.conclusions import Conclusions
from orchestrator.statistics.verdict import Verdict
from orchestrator.statistics.weight_analysis import Method
from orchestrator.statistics.weight_grid import WeightGrid

ONE_DECIMAL_FROM = 2.0


class Finding(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(Finding):
    """A value and its 95% interval.

    `interval` is the source of variation: the `items` of one model, or several `seeds`.
    """

    value: float
    ci_low: float | None
    ci_high: float | None
    interval: Literal["items", "seeds"] | None
    num_items: int


class Point(Estimate):
    """Results of one setting: a PLW and the `other_settings` that were searched.

    `values` are the trials' scores, in the order of `seeds`. If the panel compares within seeds,
    `value` and its interval exclude the level of each seed.
    """

    prompt_loss_weight: float
    w_p: float
    other_settings: dict[str, Any]
    values: list[float]
    seeds: list[int]
    trial_ids: list[str]

    @property
    def label(self) -> str:
        """The label, such as `PLW 0.1` or `PLW 0.1 (optimizer.learning_rate 2e-05)`."""
        plw = f"PLW {self.prompt_loss_weight:g}"
        return f"{plw} ({self.other})" if self.other_settings else plw

    @property
    def other(self) -> str:
        """The other settings as text, such as `optimizer.learning_rate 2e-05`."""
        return ", ".join(f"{key} {value}" for key, value in self.other_settings.items())


class Line(Finding):
    """The curve from which a verdict was derived, over w_p and in the unit of the panel.

    `low` and `high` are the 95% band, if known. With method `means`, the values are the means of
    the tried weights with their intervals. With other methods, they are a fitted or assumed curve
    with the band of its shape. If it `is_adjusted`, the effect of the learning rate is taken out of
    it, but not of the points.
    """

    method: Method
    w_p: list[float]
    value: list[float]
    low: list[float] | None
    high: list[float] | None
    is_adjusted: bool = False


class Series(Finding):
    """One series of a panel: one measure of the trials of one cell.

    `cell` is the cell of the statistics; None for the mean curve of several cells, which has no
    points. `is_compared`: whether the verdict over all cells is about these points; False for
    learning rates that are not the best.
    """

    label: str
    cell: tuple[str, str, str] | None
    points: list[Point]
    line: Line | None = None
    is_compared: bool = True


class Best(Finding):
    """The best PLW of a verdict that shows an effect.

    The fields are those of `Verdict`. `plw` is None if the verdict does not name a best weight.
    """

    plw: float | None
    nearest_plw: float
    pieces: list[tuple[float, float]]
    tied_plws: list[float]


class Panel(Finding):
    """One measure over PLW.

    The measure is a group or overall score, a benchmark score, or a measure of the mechanism. With
    `is_relative`, values are relative to the mean of their base's trials, because levels of several
    models or data sets are not comparable. With `is_within_seeds`, points exclude the effect of
    their seed that all weights share. `best` is the best PLW of the panel's verdict, if any.
    `benchmark` is the only benchmark of a group; None if there are several.
    """

    id: str
    kind: Literal["answer", "benchmark", "mechanism"]
    title: str
    unit: str
    higher_is_better: bool | None
    is_relative: bool
    series: list[Series]
    untuned: Estimate | None = None
    is_within_seeds: bool = False
    best: Best | None = None
    benchmark: str | None = None

    @property
    def points(self) -> list[Point]:
        """The points of all series."""
        return [point for series in self.series for point in series.points]

    @property
    def best_observed(self) -> Point | None:
        """The point with the best value. It is biased by selection and never determines a PLW."""
        if not self.points or self.higher_is_better is None:
            return None
        pick = max if self.higher_is_better else min
        return pick(self.points, key=lambda point: point.value)

    def format(self, value: float | None) -> str:
        """Return `value` in the panel's number format; `-` for None."""
        if self.kind == "mechanism" and value is not None:
            return f"{value:.3g}"
        return format_value(value, self.unit)

    def describe(self, estimate: Estimate) -> str:
        """Return the value with its interval: `78.1, 95% interval 66.4 to 86.6`."""
        if estimate.ci_low is None or estimate.ci_high is None:
            return f"{self.format(estimate.value)}, no interval"
        low, high = self.format(estimate.ci_low), self.format(estimate.ci_high)
        return f"{self.format(estimate.value)}, 95% interval {low} to {high}"


class RegulariserComparison(Finding):
    """Results of a regulariser at a PLW, compared with no regulariser at the lowest PLW.

    The interval of the difference is Welch's interval over seeds; None if one of the two settings
    has a single seed.
    """

    label: str
    base: str
    prompt_loss_weight: float
    estimate: Estimate
    num_seeds: int
    difference: float | None
    difference_low: float | None
    difference_high: float | None


class WeightMap(Finding):
    """Scores over prompt and completion weight, of trials that otherwise differ only in seeds.

    `scores` is the title of the scores, such as `Overall`. `label` distinguishes maps of several
    models, data sets or other settings; it is empty for a single map.
    """

    label: str
    scores: str
    unit: str
    higher_is_better: bool
    grid: WeightGrid
    sentences: list[str]
    trial_ids: list[str]

    @property
    def names_best(self) -> bool:
        """Whether a difference is significant; only then may the best pair be recommended."""
        return any(test.is_shown for test in self.grid.tests)


class Cost(Finding):
    """Total cost of the trials, over all attempts; None if unknown.

    `held_hours` and `scorer_hours` are the times for which trials held workers and scorers. `money`
    is the GPU-hours times the price in the spec.
    """

    held_hours: float
    scorer_hours: float
    gpu_hours: float | None
    money: float | None
    price_per_gpu_hour: float | None


class TrialCounts(Finding):
    """Numbers of trials: planned = done + failed + stopped + unfinished.

    Scored trials are a subset of the done ones. Stopped trials were stopped early.
    """

    planned: int
    done: int
    failed: int
    stopped: int
    unfinished: int
    scored: int


class FailedTrial(Finding):
    """A failed trial, which has no scores; `is_diverged`: its loss was not finite."""

    id: str
    prompt_loss_weight: float
    seed: int | None
    is_diverged: bool


class Findings(Finding):
    """All findings of a sweep.

    `scores` and `losses` are the conclusions on the benchmarks and on the held-out loss; None
    without such results. `varied`: settings other than PLW that differ between trials of a base.
    `weight_maps`: not empty if prompt and completion weight both varied. `not_recorded`: messages
    on measures of the mechanism that no trial recorded. `generation_ratio`: R_g, completion over
    prompt, if all trials have the same training data.
    """

    sweep: str
    scores: Conclusions | None
    losses: Conclusions | None
    panels: list[Panel]
    plws: list[float]
    varied: list[str]
    regularisers: list[RegulariserComparison]
    weight_maps: list[WeightMap]
    not_recorded: list[str]
    unused_scores: list[str]
    cost: Cost
    groups_not_measured: list[Group]
    trials: TrialCounts
    generation_ratio: float | None
    normalizations: list[str]
    single_seed: bool
    is_demo: bool
    lost: list[FailedTrial] = []

    @property
    def lead(self) -> Conclusions | None:
        """The leading conclusions: those on the benchmarks, or else on the held-out loss."""
        return self.scores or self.losses

    @property
    def weight_map(self) -> WeightMap | None:
        """The map of prompt and completion weight; None if there are several."""
        return self.weight_maps[0] if len(self.weight_maps) == 1 else None

    @property
    def is_about_plw(self) -> bool:
        """Whether the sweep is about PLW: PLW varied, or no setting did."""
        return len(self.plws) > 1 or not self.varied

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts on the scores, the leading one first, then on the held-out loss."""
        answers = [answer for answer in (self.scores, self.losses) if answer is not None]
        return [verdict for answer in answers for verdict in answer.verdicts]

    def of_kind(self, kind: str) -> list[Panel]:
        """Return the panels of the given kind."""
        return [panel for panel in self.panels if panel.kind == kind]


def format_value(value: float | None, unit: str) -> str:
    """Format a value: 3 decimals for nats and bits, 2 for shares and log odds, else 1."""
    if value is None:
        return "-"
    if "nat" in unit or "bit" in unit:
        return f"{value:.3f}"
    if unit == "points":
        return f"{value:.1f}"
    if unit == "log odds":
        return f"{value:.2f}"
    return f"{value:.1f}" if abs(value) >= ONE_DECIMAL_FROM else f"{value:.2f}"
