"""Define the true curves of simulated studies: expected points over the prompt loss weight (PLW).

This file imports nothing from the project, so an error of the analysis cannot be in the truth too.
Points are scores in percent, from 0 to 100. A group's curve is the expected mean of its benchmarks;
the overall curve is the mean of the groups. Both are exact: no curve is converted between scales.

`Shape.draw` returns the `Truth` of one study: it draws the random parts of the shape and scales the
curve to the tried weights.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Curve = Callable[[float], float]
Interval = tuple[float, float]

# Shapes are defined over plw ** EXPONENT, which maps 0.01 to 0.25 and 0.1 to 0.5.
# Source: arXiv 2401.13586, section 4 (w_p).
EXPONENT = 0.30103
# The smallest weight that counts as above 0, for shapes in which every weight above 0 is best.
ABOVE_ZERO = 1e-6


def position(plw: float) -> float:
    """Return the position of `plw` on the axis of the shapes; both are from 0 to 1."""
    return 0.0 if plw == 0 else float(plw**EXPONENT)


def plw_at(place: float) -> float:
    """Return the PLW at a position; the inverse of `position`."""
    return 0.0 if place <= 0 else float(place ** (1 / EXPONENT))


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The exact expectations of one study, in points (0 to 100).

    `levels` and `rises` have the same groups. `diverged` is the weight whose trials all score at
    chance level, or None; `chance` contains this level in points, by group. `best_continuum`
    contains the best weights between the lowest and the highest tried weight, as PLW intervals,
    ignoring the diverged weight.
    """

    name: str
    tried: tuple[float, ...]
    levels: Mapping[str, float]
    rises: Mapping[str, Curve]
    best_continuum: tuple[Interval, ...]
    diverged: float | None = None
    chance: Mapping[str, float] | None = None

    def rise(self, group: str, plw: float) -> float:
        """Return the expected points of `group` at `plw` minus its level, ignoring divergence."""
        return self.rises[group](plw)

    def group(self, group: str, plw: float) -> float:
        """Return the expected mean of the group's benchmarks at `plw`."""
        if self.chance is not None and plw == self.diverged:
            return self.chance[group]
        return self.levels[group] + self.rises[group](plw)

    def overall(self, plw: float) -> float:
        """Return the expected mean of the groups at `plw`."""
        return math.fsum(self.group(group, plw) for group in self.levels) / len(self.levels)

    @property
    def span(self) -> float:
        """Return the difference in points between the best and the worst tried weight."""
        values = [self.overall(plw) for plw in self.tried]
        return max(values) - min(values)

    @property
    def best_tried(self) -> tuple[float, ...]:
        """Return the tried weights with the highest expectation."""
        values = {plw: self.overall(plw) for plw in self.tried}
        top = max(values.values())
        return tuple(plw for plw, value in values.items() if value > top - 1e-9)

    @property
    def best_value(self) -> float:
        """Return the highest expectation between the lowest and the highest tried weight."""
        ends = [plw for interval in self.best_continuum for plw in interval]
        return max(self.overall(plw) for plw in (*ends, *self.best_tried))


# A curve in any unit, with its best weights.
Drawn = tuple[Curve, tuple[Interval, ...]]
EVERYWHERE: tuple[Interval, ...] = ((0.0, 1.0),)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The form of a truth; `draw` returns the truth of one study.

    `curve` draws a curve in any unit. `factors` multiply the overall curve, one factor per group,
    and are repeated for further groups. Their mean is 1, or 0 if groups cancel. If groups cancel, a
    group with factor 1 spans the given points.
    """

    name: str
    about: str
    curve: Callable[[np.random.Generator], Drawn]
    factors: tuple[float, ...] = (1.0,)
    # All seeds of one weight are at chance level, or one trial of the study is.
    one_weight_diverges: bool = False
    one_trial_at_chance: bool = False

    def draw(
        self,
        rng: np.random.Generator,
        *,
        tried: Sequence[float],
        levels: Mapping[str, float],
        chance: Mapping[str, float],
        span: float,
    ) -> Truth:
        """Return a truth whose overall curve spans `span` points over the `tried` weights.

        The groups' `levels` (points) are at the middle of the span.
        """
        curve, best = self.curve(rng)
        values = [curve(plw) for plw in tried]
        low, high = min(values), max(values)
        scale = span / (high - low) if high > low else 0.0
        middle = (low + high) / 2
        factors = [self.factors[each % len(self.factors)] for each in range(len(levels))]
        rises = {
            group: _scaled(curve, middle, scale * factor)
            for group, factor in zip(levels, factors, strict=True)
        }
        is_flat = scale == 0 or abs(math.fsum(factors)) < 1e-12
        ends = ((min(tried), max(tried)),)
        return Truth(
            name=self.name,
            tried=tuple(tried),
            levels=levels,
            rises=rises,
            best_continuum=ends if is_flat else _clipped(best, *ends[0]),
            diverged=float(rng.choice(np.array(tried))) if self.one_weight_diverges else None,
            chance=chance,
        )


def _scaled(curve: Curve, middle: float, scale: float) -> Curve:
    return lambda plw: scale * (curve(plw) - middle)


def _clipped(best: Sequence[Interval], low: float, high: float) -> tuple[Interval, ...]:
    """Return the best weights of a curve with one maximum, clipped to [low, high]."""
    return tuple((min(max(start, low), high), min(max(end, low), high)) for start, end in best)


def _at(plw: float) -> tuple[Interval, ...]:
    return ((plw, plw),)


def _parabola(vertex: float) -> Drawn:
    return lambda plw: -((position(plw) - vertex) ** 2), _at(plw_at(min(max(vertex, 0.0), 1.0)))


def _hill(rng: np.random.Generator) -> Drawn:
    return _parabola(float(rng.uniform(0.3, 0.75)))


def _none(_: np.random.Generator) -> Drawn:
    return lambda _: 0.0, EVERYWHERE


def _step(_: np.random.Generator) -> Drawn:
    return lambda plw: float(plw > 0), ((ABOVE_ZERO, 1.0),)


def _plateau(rng: np.random.Generator) -> Drawn:
    knee = float(rng.uniform(0.3, 0.75))
    return lambda plw: min(position(plw) / knee, 1.0), ((plw_at(knee), 1.0),)


def _saturating(_: np.random.Generator) -> Drawn:
    return lambda plw: 1 - math.exp(-3 * position(plw)), _at(1.0)


def _fast_rise(_: np.random.Generator) -> Drawn:
    top = position(0.01)

    def curve(plw: float) -> float:
        place = position(plw)
        return place / top if place <= top else 1 - 0.5 * (place - top) / (1 - top)

    return curve, _at(0.01)


def _sharp_peak(_: np.random.Generator) -> Drawn:
    top = position(0.01)
    return lambda plw: max(0.0, 1 - abs(position(plw) - top) / 0.15), _at(0.01)


def _fixed(drawn: Drawn) -> Callable[[np.random.Generator], Drawn]:
    return lambda _: drawn


# Factors of groups that rise by different amounts; their mean is 1.
UNEQUAL = (1.2, 1.0, 0.8)

SHAPES = {
    shape.name: shape
    for shape in (
        Shape(name="none", about="no effect", curve=_none),
        Shape(name="hill", about="parabola with its top inside", curve=_hill, factors=UNEQUAL),
        Shape(name="at-0", about="parabola with its top at 0", curve=_fixed(_parabola(0.0)),
              factors=UNEQUAL),
        Shape(name="at-1", about="parabola with its top at 1", curve=_fixed(_parabola(1.0)),
              factors=UNEQUAL),
        Shape(name="beyond-1", about="parabola with its top above 1",
              curve=_fixed(_parabola(1.3)), factors=UNEQUAL),
        Shape(name="linear", about="rise linear in PLW",
              curve=_fixed((lambda plw: plw, _at(1.0))), factors=UNEQUAL),
        Shape(name="convex", about="rise with PLW squared",
              curve=_fixed((lambda plw: plw**2, _at(1.0))), factors=UNEQUAL),
        Shape(name="step", about="0 is bad, all others are equal", curve=_step, factors=UNEQUAL),
        Shape(name="plateau", about="rise to a weight, flat above", curve=_plateau,
              factors=UNEQUAL),
        Shape(name="saturating", about="rise by less and less", curve=_saturating,
              factors=UNEQUAL),
        Shape(name="fast-rise", about="fast rise to 0.01, slow fall", curve=_fast_rise,
              factors=UNEQUAL),
        Shape(name="sharp-peak", about="0.01 is good, all others are equal", curve=_sharp_peak,
              factors=UNEQUAL),
        Shape(name="opposite-groups", about="one group rises, one falls, overall flat",
              curve=_fixed((position, _at(1.0))), factors=(1.0, 0.0, -1.0)),
        Shape(name="low-group", about="a hill in the group of the lowest level alone",
              curve=_hill, factors=(0.0, 0.0, 3.0)),
        Shape(name="chance-trial", about="a hill, one trial at chance", curve=_hill,
              factors=UNEQUAL, one_trial_at_chance=True),
        Shape(name="diverged-weight", about="a hill, all seeds of one weight at chance",
              curve=_hill, factors=UNEQUAL, one_weight_diverges=True),
    )
}  # fmt: skip
