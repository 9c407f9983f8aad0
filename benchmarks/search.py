"""Compare Bayesian search over PLW with random draws and the published grid: regret, hypervolume.

The curves are of the published kind, quadratic in w_p = PLW^0.30103 on the logit scale,

    score(w_p) = sigmoid(0.781 - 4.284 (w_p - best)^2),    best ~ U(0.2, 0.9),

and scores have normal noise (Source: the fit for short completions in arXiv 2401.13586). Every
search has the same number of trials, four at a time, which end in a random order; trial i of a seed
has the same noise in every search. One rule (`orchestrator.search.local_quadratic`) makes the final
recommendation of all searches. Regret is the noise-free score at the best w_p minus that at the
recommended one.

The grid has the ten published points, and two of them twice, to match the number of trials. Two
conflicting objectives are two such curves with different optima; their hypervolume is that of the
noise-free scores of the tried points, above --reference in both. p is from a one-sided Wilcoxon
signed-rank test over the seeds; `p_value` is the larger of those against random and grid.
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from rich import box
from rich.table import Table
from scipy.stats import wilcoxon

from benchmarks.program import Options, command_line, log_progress, wide_console
from orchestrator.foundation.plw_scale import w_p
from orchestrator.search.local_quadratic import Array, estimate_optimum
from orchestrator.search.methods import make_search
from orchestrator.search.points import Observation, Point
from orchestrator.spec.search_config import SearchConfig
from orchestrator.spec.setting_fields import PLW

Method = Literal["random", "tpe", "gp"]
METHODS: tuple[Method, ...] = ("tpe", "gp")
CURVATURE = -4.284
TOP_LOGIT = 0.781
PUBLISHED_GRID = (0, 5e-4, 2.236e-3, 1e-2, 2.463e-2, 5e-2, 1e-1, 2.463e-1, 5e-1, 1)
# The regret uses one objective and the hypervolume both; the names have no effect.
OBJECTIVES = ["heldout.choice", "heldout.exact_match"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Settings shared by all searches of a table."""

    trials: int
    concurrency: int
    reference: float


@dataclass(frozen=True)
class Task:
    """The curves of one seed: their optima, and the noise of each trial on each curve."""

    seed: int
    best: tuple[float, ...]
    noise: Array

    def scores(self, at_w_p: float) -> tuple[float, ...]:
        """Return the noise-free scores."""
        return tuple(score(at_w_p, best) for best in self.best)

    def observed(self, number: int, at_w_p: float) -> tuple[float, ...]:
        """Return the noisy scores of trial `number`."""
        pairs = zip(self.scores(at_w_p), self.noise[number], strict=True)
        return tuple(float(value + noise) for value, noise in pairs)


def score(at_w_p: float, best: float) -> float:
    """Return the noise-free score, in (0, 1)."""
    return float(1 / (1 + np.exp(-(TOP_LOGIT + CURVATURE * (at_w_p - best) ** 2))))


def make_task(seed: int, noise_sd: float, num_objectives: int, trials: int) -> Task:
    """Return the curves and the noise of a seed; the curves do not depend on `noise_sd`."""
    rng = np.random.default_rng(seed)
    best = tuple(float(one) for one in rng.uniform(0.2, 0.9, num_objectives))
    return Task(seed, best, noise_sd * rng.standard_normal((trials, num_objectives)))


def run_search(
    task: Task, method: Method, setting: Setting
) -> list[tuple[float, tuple[float, ...]]]:
    """Return w_p and observed scores of each trial, in the order in which trials end."""
    config = SearchConfig.model_validate(
        {
            "method": method,
            "space": {PLW: {"low": 0, "high": 1}},
            "points": setting.trials,
            "objectives": OBJECTIVES[: len(task.best)],
            "seed": task.seed,
        }
    )
    search = make_search(config)
    order = random.Random(task.seed)
    running: list[Point] = []
    ended: list[tuple[float, tuple[float, ...]]] = []
    while True:
        while len(running) < setting.concurrency and (point := search.ask()):
            running.append(point)
        if not running:
            return ended
        point = running.pop(order.randrange(len(running)))
        at_w_p = w_p(point.searched[PLW])
        values = task.observed(point.number, at_w_p)
        ended.append((at_w_p, values))
        search.tell(point.number, Observation(point.searched, "done", values))


def run_grid(task: Task, setting: Setting) -> list[tuple[float, tuple[float, ...]]]:
    """Return w_p and observed scores for the published grid.

    Randomly drawn points are repeated to reach `trials`.
    """
    again = random.Random(task.seed).sample(PUBLISHED_GRID, setting.trials - len(PUBLISHED_GRID))
    tried = [w_p(weight) for weight in (*PUBLISHED_GRID, *again)]
    return [(at_w_p, task.observed(number, at_w_p)) for number, at_w_p in enumerate(tried)]


def regret_of(task: Task, trials: Sequence[tuple[float, tuple[float, ...]]]) -> float:
    """Return the noise-free score at the best w_p minus the one at the recommended w_p."""
    found = estimate_optimum([at for at, _ in trials], [values[0] for _, values in trials], True)
    return task.scores(task.best[0])[0] - task.scores(found)[0]


def hypervolume_of(
    task: Task, trials: Sequence[tuple[float, tuple[float, ...]]], reference: float
) -> float:
    """Return the area above `reference` dominated by the tried points' noise-free scores."""
    from optuna._hypervolume import compute_hypervolume

    losses = -np.array([task.scores(at_w_p) for at_w_p, _ in trials])
    corner = np.full(2, -reference)
    inside = losses[(losses < corner).all(axis=1)]
    return float(compute_hypervolume(inside, corner)) if len(inside) else 0.0


def regrets(seed: int, noise_sd: float, setting: Setting) -> dict[str, float]:
    """Return the regret of each search for one seed."""
    task = make_task(seed, noise_sd, 1, setting.trials)
    found = {"grid": regret_of(task, run_grid(task, setting))}
    for method in ("random", *METHODS):
        found[method] = regret_of(task, run_search(task, method, setting))
    return found


def hypervolumes(seed: int, noise_sd: float, setting: Setting) -> dict[str, float]:
    """Return the hypervolume of each search for one seed with two objectives."""
    task = make_task(seed, noise_sd, 2, setting.trials)
    return {
        method: hypervolume_of(task, run_search(task, method, setting), setting.reference)
        for method in ("random", *METHODS)
    }


def rows(
    noise_sd: float,
    regret: Sequence[dict[str, float]],
    hypervolume: Sequence[dict[str, float]],
) -> list[dict[str, Any]]:
    """Return a row for each method from the results of all seeds."""
    return [
        {
            "method": method,
            "noise_sd": noise_sd,
            "regret": _mean(regret, method),
            "regret_random": _mean(regret, "random"),
            "regret_grid": _mean(regret, "grid"),
            "p_value": max(smaller_p(regret, method, other) for other in ("random", "grid")),
            "p_value_random": smaller_p(regret, method, "random"),
            "p_value_grid": smaller_p(regret, method, "grid"),
            "hypervolume": _mean(hypervolume, method),
            "hypervolume_random": _mean(hypervolume, "random"),
            "hypervolume_p_value": smaller_p(hypervolume, "random", method),
            "seeds": len(regret),
        }
        for method in METHODS
    ]


def smaller_p(found: Sequence[dict[str, float]], one: str, other: str) -> float:
    """Return the one-sided p-value for `one` being smaller than `other` (Wilcoxon signed-rank)."""
    differences = [each[one] - each[other] for each in found]
    if not any(differences):
        return 1.0
    return float(wilcoxon(differences, alternative="less").pvalue)


def _mean(found: Sequence[dict[str, float]], name: str) -> float:
    return float(np.mean([each[name] for each in found]))


def table(shown: Sequence[dict[str, Any]], title: str) -> Table:
    """Format the rows as a table; regrets are in units of 1e-4 of the score."""
    printed = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("method", "noise sd"):
        printed.add_column(name)
    for name in ("regret", "random", "grid", "p", "hypervolume", "random", "p"):
        printed.add_column(name, justify="right")
    for one in shown:
        printed.add_row(
            one["method"],
            f"{one['noise_sd']:g}",
            *(f"{one[name] * 1e4:.2f}" for name in ("regret", "regret_random", "regret_grid")),
            f"{one['p_value']:.1e}",
            *(f"{one[name]:.5f}" for name in ("hypervolume", "hypervolume_random")),
            f"{one['hypervolume_p_value']:.1e}",
        )
    return printed


def measure(
    what: Callable[..., dict[str, float]],
    noise_sd: float,
    setting: Setting,
    seeds: range,
    jobs: int,
) -> list[dict[str, float]]:
    """Return the results of all seeds, in order."""
    began = time.monotonic()
    # Processes are spawned, because threads of optuna, Ray and torch do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        found = pool.map(partial(what, noise_sd=noise_sd, setting=setting), seeds, chunksize=1)
    log_progress(f"{what.__name__}, noise sd {noise_sd:g}: {time.monotonic() - began:.0f} s")
    return found


def parser() -> argparse.ArgumentParser:
    """Return the command-line parser."""
    options: Options = {
        "--seeds": (int, 100, "curves of each noise"),
        "--first-seed": (int, 0, "the first of them"),
        "--trials": (int, 12, "trials of each search, at least 10"),
        "--concurrency": (int, 4, "trials at once"),
        "--reference": (float, 0.4, "score above which hypervolume counts, in both objectives"),
        "--jobs": (int, os.cpu_count(), "processes"),
    }
    shown = command_line("benchmarks.search", __doc__, options)
    shown.add_argument("--noise", type=float, nargs="+", default=[0.01, 0.03],
                       help="standard deviations of the noise (default: 0.01 0.03)")  # fmt: skip
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print the results, and return the exit code."""
    options = parser().parse_args(arguments)
    if options.trials < len(PUBLISHED_GRID):
        print(f"--trials must be at least {len(PUBLISHED_GRID)}", file=sys.stderr)
        return 2
    # One thread per process: the matrices are small, and the processes share the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    setting = Setting(
        trials=options.trials, concurrency=options.concurrency, reference=options.reference
    )
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    found: list[dict[str, Any]] = []
    for noise_sd in options.noise:
        regret = measure(regrets, noise_sd, setting, seeds, options.jobs)
        hypervolume = measure(hypervolumes, noise_sd, setting, seeds, options.jobs)
        found += rows(noise_sd, regret, hypervolume)
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    title = (
        f"{options.trials} trials, {options.concurrency} at once, {options.seeds} seeds; regret in"
        " 1e-4 of the score"
    )
    wide_console(100).print(table(found, title))
    return 0


if __name__ == "__main__":
    sys.exit(main())
