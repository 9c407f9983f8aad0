"""Tables of scores with a known truth, in points."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.statistics.table import ScoreRow
from orchestrator.statistics.trial_points import OVERALL, Trials, collect_trials
from orchestrator.statistics.weight_analysis import WeightAnalysis, analyse_weights
from orchestrator.statistics.weight_effects import Effects, fit_effects

Array = NDArray[np.float64]
Curve = Callable[[float], float]

PLWS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
SIX = (0.0, 0.01, 0.05, 0.1, 0.3, 1.0)
TWO_GROUPS = {"multiple_choice": (45.0, 50.0, 55.0), "short_generation": (12.0, 20.0)}


def w_p(plw: float) -> float:
    """PLW ** 0.30103, by hand. Source: arXiv 2401.13586."""
    return float(plw**0.30103)


def hill(at: float) -> float:
    """A hill with 3.1 points at PLW 0.242 over 0."""
    return -7.3 * (at - 0.65) ** 2


def flat(_: float) -> float:
    """No effect."""
    return 0.0


def make_rows(
    curve: Curve | Mapping[str, Curve],
    *,
    plws: Sequence[float] = PLWS,
    seeds: int = 3,
    trial_sd: float = 0.3,
    seed_sd: float = 0.0,
    noisier: Mapping[float, float] | None = None,
    seed: int = 0,
    groups: Mapping[str, Sequence[float]] | None = None,
    **same: Any,
) -> list[ScoreRow]:
    """Return scores level + curve(w_p) + effect of the seed + noise of the trial, in points of 100.

    Args:
        curve: points at w_p, of all groups or by group.
        trial_sd: sd of the noise that a trial's benchmarks share; `noisier` multiplies it by PLW.
        groups: levels of each group's benchmarks, in points.
    """
    rng = np.random.default_rng(seed)
    groups = groups or {"multiple_choice": (45.0, 50.0, 55.0)}
    seed_effects = seed_sd * rng.standard_normal(seeds)
    rows = []
    for plw in plws:
        for number in range(seeds):
            luck = trial_sd * (noisier or {}).get(plw, 1.0) * rng.standard_normal()
            for group, levels in groups.items():
                rise = (curve if callable(curve) else curve[group])(w_p(plw))
                for index, level in enumerate(levels):
                    points = (
                        level + rise + seed_effects[number] + luck + 0.1 * rng.standard_normal()
                    )
                    rows.append(
                        ScoreRow(
                            benchmark=f"{group}{index}",
                            group=group,
                            plw=plw,
                            seed=str(number),
                            score=float(points) / 100,
                            **same,
                        )
                    )
    return rows


def rows_at(
    points: Mapping[tuple[float, str], float], *, level: float = 50.0, **same: Any
) -> list[ScoreRow]:
    """Return rows of one benchmark with `level` + `points`, by PLW and seed."""
    return [
        ScoreRow(benchmark="b", group="g", plw=plw, seed=seed, score=(level + own) / 100, **same)
        for (plw, seed), own in points.items()
    ]


def grid(
    values: Sequence[Sequence[float]], plws: Sequence[float]
) -> dict[tuple[float, str], float]:
    """Return `values` (weights, seeds) by PLW and seed, with the same seeds at every weight."""
    return {
        (plw, str(seed)): float(value)
        for plw, own in zip(plws, values, strict=True)
        for seed, value in enumerate(own)
    }


def columns(points: Mapping[tuple[float, str], float]) -> tuple[Array, list[str], Array]:
    """Return PLW (T), seeds (T) and points (T)."""
    plw = np.array([key[0] for key in points])
    return plw, [key[1] for key in points], np.array(list(points.values()))


def fitted(rows: Sequence[ScoreRow], group: str = OVERALL) -> tuple[Trials, Effects]:
    """Return the trials of `rows` and their fitted effects."""
    trials = collect_trials(rows)
    effects = fit_effects(trials, group)
    assert effects is not None
    return trials, effects


def analysed(rows: Sequence[ScoreRow], group: str = OVERALL) -> WeightAnalysis:
    """Return the analysis of the mean over all cells."""
    trials, effects = fitted(rows, group)
    return analyse_weights(effects, trials, group)[0]
