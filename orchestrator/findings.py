"""What a sweep's scores can say: the vocabulary of the analysis, which dumps to JSON."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from evals.config import Group

# Source: arXiv 2401.13586, the transform under which PLW 0.1 becomes 0.5.
W_P_EXPONENT = 0.30103
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
    """The score of one PLW (with `other_settings`, where more than PLW was searched)."""

    prompt_loss_weight: float
    w_p: float
    other_settings: dict[str, Any]
    seeds: list[int]
    trial_ids: list[str]

    @property
    def label(self) -> str:
        """Such as `PLW 0.1` or `PLW 0.1 (optimizer.learning_rate 2e-05)`."""
        plw = f"PLW {self.prompt_loss_weight:g}"
        if not self.other_settings:
            return plw
        return f"{plw} ({', '.join(f'{k} {v}' for k, v in self.other_settings.items())})"


class Measure(Finding):
    """One measure over PLW, on one base. `best` is the best one observed, named as best only if
    `is_named`.

    `id` is the measure's name, followed by the base's key where the sweep has several.
    `beats_untuned` is None where there is no untuned score or no interval to compare.
    """

    id: str
    base: str
    name: str
    title: str
    phrase: str
    group: Group | None
    unit: str
    higher_is_better: bool
    points: list[Point]
    untuned: Estimate | None
    best: Point | None
    is_named: bool
    verdict: str
    beats_untuned: bool | None
    single_seed: bool

    def format(self, value: float | None) -> str:
        return format_value(value, self.unit)

    @property
    def ties(self) -> list[Point]:
        """The points whose value is that of `best`, itself among them."""
        best = self.best
        return [point for point in self.points if best and point.value == best.value]

    def describe(self, estimate: Estimate) -> str:
        """The value with its interval: `0.78, 95% interval 0.66 to 0.87`."""
        if estimate.ci_low is None or estimate.ci_high is None:
            return f"{self.format(estimate.value)}, no interval"
        low, high = self.format(estimate.ci_low), self.format(estimate.ci_high)
        return f"{self.format(estimate.value)}, 95% interval {low} to {high}"


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


class Findings(Finding):
    """All that the scores of a sweep say.

    `generation_ratio` is R_g, completion over prompt, where all trials have the same training data.
    """

    sweep: str
    measures: list[Measure]
    groups_not_measured: list[Group]
    trials: TrialCounts
    generation_ratio: float | None
    normalizations: list[str]
    single_seed: bool
    is_demo: bool


def w_p(prompt_loss_weight: float) -> float:
    """PLW ** 0.30103, in [0, 1]: gives small weights room. Source: arXiv 2401.13586."""
    return float(prompt_loss_weight**W_P_EXPONENT)


def format_value(value: float | None, unit: str) -> str:
    """Three decimals for nats and bits, two for shares, one for larger scales; `-` for None."""
    if value is None:
        return "-"
    if "nat" in unit or "bit" in unit:
        return f"{value:.3f}"
    return f"{value:.1f}" if abs(value) >= ONE_DECIMAL_FROM else f"{value:.2f}"
