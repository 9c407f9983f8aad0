"""What a sweep's records can say: the vocabulary of the analysis, which dumps to JSON."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from evals.config import Group
from orchestrator.statistics.conclusions import Answer
from orchestrator.statistics.verdict import Verdict
from orchestrator.statistics.weight_analysis import Method
from orchestrator.statistics.weight_grid import WeightGrid

ONE_DECIMAL_FROM = 2.0


class Finding(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(Finding):
    """A value and its 95% interval: over `items` of one model, or over the `seeds` of several."""

    value: float
    ci_low: float | None
    ci_high: float | None
    interval: Literal["items", "seeds"] | None
    num_items: int


class Point(Estimate):
    """What came of one PLW (with `other_settings`, where more than PLW was searched).

    `values` are those of its trials as scored, in the order of `seeds`; `value` and its interval
    are without the seeds' levels where the panel is within seeds.
    """

    prompt_loss_weight: float
    w_p: float
    other_settings: dict[str, Any]
    values: list[float]
    seeds: list[int]
    trial_ids: list[str]

    @property
    def label(self) -> str:
        """Such as `PLW 0.1` or `PLW 0.1 (optimizer.learning_rate 2e-05)`."""
        plw = f"PLW {self.prompt_loss_weight:g}"
        return f"{plw} ({self.other})" if self.other_settings else plw

    @property
    def other(self) -> str:
        """The other settings in words, such as `optimizer.learning_rate 2e-05`."""
        return ", ".join(f"{key} {value}" for key, value in self.other_settings.items())


class Line(Finding):
    """What verdicts rest on, over w_p on a panel's own scale, with its 95% band, if known.

    A curve that fits or is assumed, with the band of its shape; with the method `means`, the means
    of the tried weights, each with its interval.
    """

    method: Method
    w_p: list[float]
    value: list[float]
    low: list[float] | None
    high: list[float] | None


class Series(Finding):
    """What belongs together in a panel: the trials of one cell, or another measure of the same.

    `cell` is that of the statistics; None for the mean curve of several, which has no points.
    """

    label: str
    cell: tuple[str, str, str] | None
    points: list[Point]
    line: Line | None = None


class Best(Finding):
    """Where a verdict that shows an effect sees the best PLW: fields of `Verdict`.

    `plw` is None where the verdict does not say which weight is best.
    """

    plw: float | None
    nearest_plw: float
    pieces: list[tuple[float, float]]
    tied_plws: list[float]


class Panel(Finding):
    """A measure over PLW: of a group or overall, of a benchmark, or of the mechanism.

    With `is_relative`, values are counted from the mean of their base's trials, since levels of
    several models or data sets do not compare. With `is_within_seeds`, points are without what
    their seed does to all weights alike. `best` is that of the panel's verdict, if it has one.
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

    @property
    def points(self) -> list[Point]:
        """Those of all series."""
        return [point for series in self.series for point in series.points]

    @property
    def best_observed(self) -> Point | None:
        """The best of the points, by which alone nothing is chosen among PLWs."""
        if not self.points or self.higher_is_better is None:
            return None
        pick = max if self.higher_is_better else min
        return pick(self.points, key=lambda point: point.value)

    def format(self, value: float | None) -> str:
        if self.kind == "mechanism" and value is not None:
            return f"{value:.3g}"
        return format_value(value, self.unit)

    def describe(self, estimate: Estimate) -> str:
        """The value with its interval: `78.1, 95% interval 66.4 to 86.6`."""
        if estimate.ci_low is None or estimate.ci_high is None:
            return f"{self.format(estimate.value)}, no interval"
        low, high = self.format(estimate.ci_low), self.format(estimate.ci_high)
        return f"{self.format(estimate.value)}, 95% interval {low} to {high}"


class Compared(Finding):
    """A regulariser's setting at a PLW, and its difference from none at the lowest PLW tried.

    The interval of the difference is Welch's over seeds; None where either has a single one.
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
    """Scores over prompt and completion weight, of trials that differ in nothing else but seeds.

    `scores` says of what, such as `Overall`. `label` tells maps of several models, data sets or
    other settings apart; it is empty for a single one. `trial_ids` are those of its trials.
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
        """Whether the pair with the best mean may be recommended: some difference is shown."""
        return any(test.is_shown for test in self.grid.tests)


class Cost(Finding):
    """What the trials took in all, over all attempts; None where nothing says so.

    `held_hours`: for which trials held their workers, and scorers. `money`: GPU-hours times the
    price in the spec.
    """

    held_hours: float
    scorer_hours: float
    gpu_hours: float | None
    money: float | None
    price_per_gpu_hour: float | None


class TrialCounts(Finding):
    """How many trials there are: planned = done + failed + stopped + unfinished.

    Those that are scored are done too, and those that were stopped were given up early.
    """

    planned: int
    done: int
    failed: int
    stopped: int
    unfinished: int
    scored: int


class LostTrial(Finding):
    """A trial that failed and so has no scores; `is_diverged`: its loss was no longer finite."""

    id: str
    prompt_loss_weight: float
    seed: int | None
    is_diverged: bool


class Findings(Finding):
    """All that a sweep says.

    `scores` is the answer of the benchmarks and `losses` that of the held-out loss; None where
    there are none. `varied` are the settings other than PLW that differ between trials of a base,
    `weight_maps` are there where prompt and completion weight varied together,
    `not_recorded` what the trials could have recorded of the mechanism and did not.
    `generation_ratio` is R_g, completion over prompt, where all trials have the same training data.
    """

    sweep: str
    scores: Answer | None
    losses: Answer | None
    panels: list[Panel]
    plws: list[float]
    varied: list[str]
    regularisers: list[Compared]
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
    lost: list[LostTrial] = []

    @property
    def lead(self) -> Answer | None:
        """The answer that counts: the benchmarks', or else that of the held-out loss."""
        return self.scores or self.losses

    @property
    def weight_map(self) -> WeightMap | None:
        """The one map of prompt and completion weight; of several none speaks for the sweep."""
        return self.weight_maps[0] if len(self.weight_maps) == 1 else None

    @property
    def is_about_plw(self) -> bool:
        """Whether PLW or nothing at all varied, so that there is something to say of it."""
        return len(self.plws) > 1 or not self.varied

    @property
    def verdicts(self) -> list[Verdict]:
        """Of all scores, the leading one first, then of the held-out loss."""
        answers = [answer for answer in (self.scores, self.losses) if answer is not None]
        return [verdict for answer in answers for verdict in answer.verdicts]

    def of_kind(self, kind: str) -> list[Panel]:
        return [panel for panel in self.panels if panel.kind == kind]


def format_value(value: float | None, unit: str) -> str:
    """Three decimals for nats and bits, two for shares, one for larger scales; `-` for None."""
    if value is None:
        return "-"
    if "nat" in unit or "bit" in unit:
        return f"{value:.3f}"
    if unit == "points":
        return f"{value:.1f}"
    return f"{value:.1f}" if abs(value) >= ONE_DECIMAL_FROM else f"{value:.2f}"
