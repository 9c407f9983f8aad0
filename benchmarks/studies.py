"""Simulate studies with known truth: scores of thirteen benchmarks, as rows of a CSV file.

This file imports only `benchmarks.truths` from the project, and shares neither code nor assumptions
with the analysis. A score is a binomial share (or a mean with normal error) around

    expected score + noise of the trial + noise of the group + noise of the score + seed effect

The terms are added in points and are smaller for benchmarks near 0 or 100. `Design.noise_sd` is the
sd of a trial's overall mean within seeds, including items; `measured_sd` measures it.
"""

import csv
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.truths import SHAPES, Shape, Truth

Array = NDArray[np.float64]

PLWS = (0.0, 0.01, 0.05, 0.242, 0.5, 1.0)
# The grid of arXiv 2401.13586.
PAPER_PLWS = (0.0, 5e-4, 2.236e-3, 1e-2, 2.463e-2, 5e-2, 1e-1, 2.463e-1, 5e-1, 1.0)
COLUMNS = ("benchmark", "group", "plw", "learning_rate", "seed", "trial", "score", "num_items",
           "standard_error")  # fmt: skip

# Unscaled sizes of the three parts of the noise and of the seed effects: the part shared by all
# scores of a trial, the part shared by a group's scores, and the part of each score.
PARTS = (1.0, 0.8, 0.8)
# Fall of scores with the distance from the best learning rate, in points per decade.
RATE_SLOPE = 4.0
# Minimum distance of expected scores from 0 and 1, so that noise is not clipped.
MIN_SCORE = 0.005


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark; `level` and `chance` are shares in [0, 1].

    `error` is the uncertainty that a row states: "items" (num_items), "se" (standard_error) or ""
    (none).
    """

    name: str
    group: str
    level: float
    chance: float
    num_items: int
    error: str = "items"
    has_effect: bool = True


def _group(
    name: str, error: str, rows: Iterable[tuple[float, float, int]], *, large: int = 0
) -> list[Benchmark]:
    """Return benchmarks from (level, chance, items); with `large`, the first is large and flat."""
    return [
        Benchmark(name=f"{name}_{each}", group=name, level=level, chance=chance,
                  num_items=large if large and each == 0 else num_items, error=error,
                  has_effect=not (large and each == 0))
        for each, (level, chance, num_items) in enumerate(rows)
    ]  # fmt: skip


KNOWLEDGE = ((0.90, 0.25, 2376), (0.78, 0.50, 1838), (0.64, 0.50, 1267), (0.52, 0.25, 1172),
             (0.38, 0.25, 10042))  # fmt: skip
ANSWERS = ((0.66, 0.50, 1500), (0.45, 0.25, 2000), (0.25, 0.0, 3000))
TEXTS = ((0.58, 0.002, 1500), (0.34, 0.002, 1500), (0.17, 0.002, 1500), (0.09, 0.002, 1500),
         (0.03, 0.002, 1500))  # fmt: skip
LOW_TEXTS = ((0.20, 0.002, 1500), (0.14, 0.002, 1500), (0.10, 0.002, 1500), (0.06, 0.002, 1500),
             (0.03, 0.002, 1500))  # fmt: skip


def _three_groups(
    texts: Iterable[tuple[float, float, int]] = TEXTS, *, items: int = 0, large: int = 0
) -> tuple[Benchmark, ...]:
    """Return groups of five, three and five benchmarks; `items`, if given, is stated for each."""
    unstated = "items" if items else ""
    parts = (
        ("knowledge", "items", KNOWLEDGE),
        ("answers", unstated, ANSWERS),
        ("texts", "se", texts),
    )
    return tuple(
        benchmark
        for name, error, rows in parts
        for benchmark in _group(name, error, [(level, chance, items or num_items)
                                              for level, chance, num_items in rows], large=large)
    )  # fmt: skip


def _seven_groups() -> tuple[Benchmark, ...]:
    rows = (*KNOWLEDGE, *ANSWERS, *TEXTS)
    return tuple(
        benchmark
        for each in range(7)
        for benchmark in _group(f"group_{each}", "items", rows[each::7])
    )


THREE_GROUPS = _three_groups()
LOW_GROUP = _three_groups(LOW_TEXTS)
LARGE_FLAT = _three_groups(items=800, large=10_000)
SEVEN_GROUPS = _seven_groups()


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A learning rate: its level in points, and the rise of its curve relative to the truth's."""

    value: float
    level: float
    rise: float


@dataclass(frozen=True, kw_only=True)
class Design:
    """The trials of a study and their noise; sds and the span are in points."""

    name: str
    plws: tuple[float, ...] = PLWS
    num_seeds: int = 3
    benchmarks: tuple[Benchmark, ...] = THREE_GROUPS
    span: float = 3.0
    noise_sd: float = 0.5
    seed_sd: float = 0.5
    # By weight: noise relative to that of the other weights.
    noise_factors: Mapping[float, float] = field(default_factory=dict)
    # Share of scores that are missing.
    missing: float = 0.0
    # Learning rates, each with all weights and seeds. The truth is that of the best one.
    rates: tuple[Rate, ...] = ()
    # Each weight has this many random rates of its own, as in a search, with all seeds. The level
    # falls linearly with the distance from the best rate, by 4 points per decade.
    num_own_rates: int = 0
    # All noise except that of items is Student's t with 3 degrees of freedom, at the same sd.
    has_heavy_tails: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One score (share in [0, 1]), a row of the CSV file; None is an empty cell."""

    benchmark: str
    group: str
    plw: float
    learning_rate: float | None
    seed: int
    trial: str
    score: float
    num_items: int | None
    standard_error: float | None


@dataclass(frozen=True, kw_only=True)
class Study:
    """Simulated scores and their true expectations."""

    rows: tuple[Row, ...]
    truth: Truth


def simulate(truth: str, design: Design, number: int) -> Study:
    """Return study `number` of a truth (a name in `SHAPES`) and a design; deterministic."""
    names = [zlib.crc32(name.encode()) for name in (truth, design.name)]
    rng = np.random.default_rng([*names, number])
    shape = SHAPES[truth]
    drawn = shape.draw(
        rng,
        tried=design.plws,
        levels=group_means(design.benchmarks, [each.level for each in design.benchmarks]),
        chance=group_means(design.benchmarks, [each.chance for each in design.benchmarks]),
        span=design.span,
    )
    return Study(rows=tuple(_rows(rng, shape, drawn, design)), truth=drawn)


def group_means(benchmarks: Sequence[Benchmark], shares: Sequence[float]) -> dict[str, float]:
    """Return the points of each group: the unweighted mean of its benchmarks."""
    values: dict[str, list[float]] = {}
    for benchmark, share in zip(benchmarks, shares, strict=True):
        values.setdefault(benchmark.group, []).append(100 * share)
    return {group: math.fsum(each) / len(each) for group, each in values.items()}


def _rows(rng: np.random.Generator, shape: Shape, truth: Truth, design: Design) -> Iterable[Row]:
    benchmarks = design.benchmarks
    parts = effect_parts(rng, benchmarks)
    chance = np.array([each.chance for each in benchmarks])
    unit = unit_sd(benchmarks)
    seeds = [design.seed_sd / unit * _noise(rng, benchmarks) for _ in range(design.num_seeds)]
    trials = [(plw, seed) for plw in design.plws for seed in range(design.num_seeds)]
    lost = trials[rng.integers(len(trials))] if shape.one_trial_at_chance else None
    of_rates: list[tuple[Rate | None, float, int]]
    of_rates = [(rate, *trial) for rate in design.rates or (None,) for trial in trials]
    if design.num_own_rates:
        of_weight: dict[float, list[Rate]] = {plw: [] for plw in design.plws}
        best = rng.uniform(-4.5, -3.5)
        for plw in design.plws * design.num_own_rates:
            of_weight[plw].append(_random_rate(rng, best))
        of_rates = [(rate, plw, seed) for plw, seed in trials for rate in of_weight[plw]]
    for rate, plw, seed in of_rates:
        expected = expected_scores(truth, benchmarks, parts, plw, rate)
        scale = noise_scale(benchmarks, design.noise_sd * design.noise_factors.get(plw, 1.0))
        noise = scale * _noise(rng, benchmarks)
        if design.has_heavy_tails:
            # One divisor for the whole trial makes its overall mean a t with 3 degrees of freedom,
            # whose variance is 3.
            noise /= math.sqrt(rng.chisquare(3))
        probabilities = np.clip(expected + (noise + seeds[seed]) / 100, 0, 1)
        if plw == truth.diverged or (plw, seed) == lost:
            probabilities = chance
        yield from _scored(rng, design, probabilities, rate, plw, seed)


def _random_rate(rng: np.random.Generator, best: float) -> Rate:
    """Return a random rate over two decades; `best` is the logarithm of the best one."""
    log = rng.uniform(-5, -3)
    return Rate(value=float(10**log), level=-RATE_SLOPE * abs(log - best), rise=1.0)


def _scored(
    rng: np.random.Generator,
    design: Design,
    probabilities: Array,
    rate: Rate | None,
    plw: float,
    seed: int,
) -> Iterable[Row]:
    name = f"plw{plw:g}-seed{seed}" + ("" if rate is None else f"-rate{rate.value:g}")
    for benchmark, probability in zip(design.benchmarks, probabilities, strict=True):
        # Use at least half an item, because a standard error of 0 would claim certainty.
        spread = max(probability * (1 - probability), 0.5 / benchmark.num_items)
        error = math.sqrt(spread / benchmark.num_items)
        if benchmark.error == "se":
            score = float(np.clip(rng.normal(probability, error), 0, 1))
        else:
            score = float(rng.binomial(benchmark.num_items, probability)) / benchmark.num_items
        if rng.random() < design.missing:
            continue
        yield Row(
            benchmark=benchmark.name,
            group=benchmark.group,
            plw=plw,
            learning_rate=None if rate is None else rate.value,
            seed=seed,
            trial=name,
            score=score,
            num_items=benchmark.num_items if benchmark.error == "items" else None,
            standard_error=error if benchmark.error == "se" else None,
        )


def effect_parts(rng: np.random.Generator, benchmarks: Sequence[Benchmark]) -> Array:
    """Return each benchmark's rise relative to its group's rise; the mean in a group is 1.

    The factors are smaller near 0 and 100, and 0 for benchmarks without an effect.
    """
    drawn = sensitivities(benchmarks) * rng.uniform(0.7, 1.3, len(benchmarks))
    drawn *= [float(each.has_effect) for each in benchmarks]
    groups = np.array([each.group for each in benchmarks])
    means = np.array([drawn[groups == each.group].mean() for each in benchmarks])
    parts: Array = drawn / means
    return parts


def expected_scores(
    truth: Truth,
    benchmarks: Sequence[Benchmark],
    parts: Array,
    plw: float,
    rate: Rate | None = None,
) -> Array:
    """Return the expected share of each benchmark at `plw`, ignoring divergence.

    Args:
        rate: adds its level to the mean of each group, as the effect of the weight.

    Raises:
        ValueError: a score is so close to 0 or 1 that noise would be clipped.
    """
    level, rise = (0.0, 1.0) if rate is None else (rate.level, rate.rise)
    expected = np.array([
        each.level + part * (level + rise * truth.rise(each.group, plw)) / 100
        for each, part in zip(benchmarks, parts, strict=True)
    ])  # fmt: skip
    if expected.min() < MIN_SCORE or expected.max() > 1 - MIN_SCORE:
        raise ValueError(f"{truth.name}: expected scores leave [{MIN_SCORE}, {1 - MIN_SCORE}]")
    return expected


def sensitivities(benchmarks: Sequence[Benchmark]) -> Array:
    """Return the slope of a logistic curve at each level, relative to 50%: 4p(1 - p)."""
    return np.array([4 * each.level * (1 - each.level) for each in benchmarks])


def _noise(rng: np.random.Generator, benchmarks: Sequence[Benchmark]) -> Array:
    """Return the unscaled noise of the scores of one trial (or of one seed)."""
    groups = sorted({each.group for each in benchmarks})
    of_groups = dict(zip(groups, rng.normal(size=len(groups)), strict=True))
    shared, by_group, own = PARTS
    noise = shared * rng.normal() + own * rng.normal(size=len(benchmarks))
    noise += by_group * np.array([of_groups[each.group] for each in benchmarks])
    scaled: Array = sensitivities(benchmarks) * noise
    return scaled


def _weights(benchmarks: Sequence[Benchmark]) -> Array:
    """Return each benchmark's weight in the overall mean."""
    groups = [each.group for each in benchmarks]
    return np.array([1 / len(set(groups)) / groups.count(group) for group in groups])


def unit_sd(benchmarks: Sequence[Benchmark]) -> float:
    """Return the sd of the overall mean of unscaled noise."""
    loads = _weights(benchmarks) * sensitivities(benchmarks)
    groups = np.array([each.group for each in benchmarks])
    of_groups = sum(float(loads[groups == group].sum()) ** 2 for group in set(groups.tolist()))
    shared, by_group, own = PARTS
    return math.sqrt((shared * float(loads.sum())) ** 2 + by_group**2 * of_groups
                     + own**2 * float((loads**2).sum()))  # fmt: skip


def item_sd(benchmarks: Sequence[Benchmark]) -> float:
    """Return the sd of the overall mean that is caused by items, in points."""
    variances = [each.level * (1 - each.level) / each.num_items for each in benchmarks]
    return 100 * math.sqrt(float((_weights(benchmarks) ** 2 * variances).sum()))


def noise_scale(benchmarks: Sequence[Benchmark], sd: float) -> float:
    """Return the scale of unscaled noise that gives, together with items, an sd of `sd` points.

    Raises:
        ValueError: the sd of the items alone exceeds `sd`.
    """
    left = sd**2 - item_sd(benchmarks) ** 2
    if left < 0:
        raise ValueError(f"items alone give an sd of {item_sd(benchmarks):.2f}, wanted {sd:.2f}")
    return math.sqrt(left) / unit_sd(benchmarks)


def overall_means(rows: Iterable[Row]) -> dict[tuple[float, int], float]:
    """Return the points of each trial by (plw, seed): the mean over groups of benchmark means."""
    scores: dict[tuple[float, int], dict[str, list[float]]] = {}
    for row in rows:
        trial_store = scores.setdefault((row.plw, row.seed), {})
        trial_store.setdefault(row.group, []).append(100 * row.score)
    return {
        trial: math.fsum(math.fsum(values) / len(values) for values in groups.values())
        / len(groups)
        for trial, groups in scores.items()
    }


def measured_sd(design: Design, num_studies: int, *, plw: float | None = None) -> float:
    """Measure the sd of a trial's overall mean within seeds, in simulated studies without effect.

    `plw` restricts the measurement to one weight, compared with the mean of the other weights of
    its seed.
    """
    squares, freedom = 0.0, 0.0
    for number in range(num_studies):
        means = overall_means(simulate("none", design, number).rows)
        for seed in range(design.num_seeds):
            values = np.array([means[each, seed] for each in design.plws])
            if plw is None:
                squares += float(((values - values.mean()) ** 2).sum())
                freedom += len(values) - 1
            else:
                at = design.plws.index(plw)
                others = np.delete(values, at)
                # Subtract the variance of the mean of the others.
                squares += float(
                    (values[at] - others.mean()) ** 2 - others.var(ddof=1) / len(others)
                )
                freedom += 1
    return math.sqrt(squares / freedom)


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write the rows as a CSV file with a header; None is an empty cell."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            values = (getattr(row, column) for column in COLUMNS)
            writer.writerow(["" if value is None else value for value in values])
