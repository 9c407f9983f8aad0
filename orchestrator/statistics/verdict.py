"""Define the verdict on one question about the weights."""

import re
from dataclasses import dataclass
from typing import Literal

from orchestrator.statistics.trial_points import Cell
from orchestrator.statistics.weight_analysis import Method

Kind = Literal["best", "tied", "rises", "falls", "no effect", "cannot say"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Verdict on PLW from the scores of one group, in one cell or over all cells.

    Attributes:
        kind: kind of verdict; `tied` if several tried weights are tied for best.
        method: basis of the optimum: a curve that fits, means, or an assumed curve.
        has_effect: whether `adjusted_p_value` is under 0.05.
        num_seeds: smallest and largest number of seeds per weight.
        num_cell_parts: numbers of models, data sets and conditions.
        best_plw: estimated best weight, None if nothing could be fitted; `nearest_plw` is the
            nearest tried weight.
        pieces: PLW intervals that contain the best weight (95%); with means, runs of tried weights.
        tied_plws: tried weights among the pieces, if the verdict is based on means.
        worse_plws: tried weights that are significantly worse than another, jointly (95%), if the
            verdict is based on means and shows an effect.
        lack_of_fit_p_value: p-value of the lack of fit of a quadratic in w_p; None if weights are
            not repeated.
        difference, difference_high: difference between the best and the worst weight, estimate and
            95% upper bound, in the unit of the conclusions.
        gain: gain of the best PLW over `reference_plw` (the lowest tried), corrected for selection,
            with a 95% interval.
        is_within_seeds: whether weights are compared within seeds.
        learning_rate: the learning rate of the trials if several were crossed with the weights;
            None otherwise, or if the cells have different rates.
    """

    group: str
    cell: Cell | None
    kind: Kind
    text: str
    has_effect: bool
    num_trials: int
    num_weights: int
    num_seeds: tuple[int, int]
    num_cell_parts: tuple[int, int, int]
    method: Method | None = None
    best_plw: float | None = None
    nearest_plw: float | None = None
    pieces: tuple[tuple[float, float], ...] = ()
    tied_plws: tuple[float, ...] = ()
    worse_plws: tuple[float, ...] = ()
    p_value: float | None = None
    adjusted_p_value: float | None = None
    lack_of_fit_p_value: float | None = None
    interaction_p_value: float | None = None
    difference: float | None = None
    difference_high: float | None = None
    reference_plw: float | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    is_within_seeds: bool = False
    learning_rate: float | None = None

    @property
    def claims_effect(self) -> bool:
        """True if the verdict claims that PLW matters."""
        return self.has_effect and self.kind != "no effect"

    @property
    def names_weight(self) -> bool:
        """True if the verdict names the best weights."""
        return self.kind in ("best", "tied", "rises", "falls")

    @property
    def name(self) -> str:
        """Return text such as `multiple_choice`; for one cell, such as `overall-model-tiny`."""
        if self.cell is None:
            return self.group
        words = "-".join(part for part in self.cell if part)
        return f"{self.group}-{re.sub(r'[^A-Za-z0-9._]+', '-', words).strip('-')}"
