"""Search methods through their ask-and-tell interface, with simulated outcomes."""

import random
import subprocess
import sys
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pytest

from orchestrator.foundation.plw_scale import w_p
from orchestrator.search.convergence import convergence_verdict
from orchestrator.search.methods import make_search
from orchestrator.search.optuna_search import SampledSearch
from orchestrator.search.points import Observation, Point, Search
from orchestrator.spec.search_config import SearchConfig

PLW = "loss.prompt_loss_weight"
RATE = "optimizer.learning_rate"
PLW_RANGE = {"low": 0, "high": 1}
MIXED = {
    PLW: PLW_RANGE,
    RATE: {"low": 1e-5, "high": 1e-3, "scale": "log"},
    "schedule.steps": {"low": 10, "high": 20},
    "loss.normalization": ["weights", "tokens"],
}
SAMPLED = ["random", "tpe", "gp"]


def config(**search: Any) -> SearchConfig:
    return SearchConfig.model_validate({"space": {PLW: PLW_RANGE}, **search})


def done(searched: dict[str, Any], *values: float) -> Observation:
    return Observation(searched, "done", values or (loss(searched),))


def loss(searched: dict[str, Any]) -> float:
    """Return a loss with its minimum at w_p 0.6 and learning rate 1e-4."""
    return 2 + (w_p(searched[PLW]) - 0.6) ** 2 + (searched.get(RATE, 1e-4) * 1e4 - 1) ** 2


def run_search(search: Search) -> list[dict[str, Any]]:
    """Run a search to its end and return its points."""
    points = []
    while point := search.ask():
        points.append(point.searched)
        search.tell(point.number, done(point.searched))
    return points


def test_a_grid_runs_in_order_without_excluded_and_known_points() -> None:
    grid = config(
        space={PLW: [0, 0.1, 1], "seed": [0, 1]}, exclude=[{PLW: 0.1}, {PLW: 1, "seed": 0}]
    )
    assert make_search(grid).ask() == Point(0, {PLW: 0, "seed": 0})
    search = make_search(grid, known=[done({"seed": 0, PLW: 0.0}, 1.0)])
    assert run_search(search) == [{PLW: 0, "seed": 1}, {PLW: 1, "seed": 1}]
    assert search.ended is None


@pytest.mark.parametrize("method", SAMPLED)
def test_plw_0_and_1_come_first_and_points_are_counted(method: str) -> None:
    search = make_search(config(method=method, points=7))
    points = run_search(search)
    assert points[:2] == [{PLW: 0.0}, {PLW: 1.0}]
    assert len(points) == len({str(point) for point in points}) == 7
    assert search.ended is None


@pytest.mark.parametrize("method", SAMPLED)
def test_points_to_evaluate_come_before_plw_0_and_1(method: str) -> None:
    first = [{RATE: 3e-4}, {PLW: 1.0, "schedule.steps": 15}]
    search = make_search(config(method=method, points=4, space=MIXED, points_to_evaluate=first))
    points = run_search(search)
    assert points[0][RATE] == 3e-4
    assert (points[1][PLW], points[1]["schedule.steps"]) == (1.0, 15)
    assert points[2][PLW] == 0.0
    assert all(set(point) == set(MIXED) for point in points)


# The Gaussian process takes seconds for this on a busy machine.
@pytest.mark.parametrize("method", ["random", "tpe", pytest.param("gp", marks=pytest.mark.slow)])
def test_the_same_seed_and_outcomes_give_the_same_points(method: str) -> None:
    mixed = config(method=method, points=8, space=MIXED, seed=3)
    points = run_search(make_search(mixed))
    assert points == run_search(make_search(mixed))
    assert points != run_search(make_search(config(method=method, points=8, space=MIXED, seed=4)))


@pytest.mark.parametrize("method", SAMPLED)
def test_every_point_is_in_the_space(method: str) -> None:
    for point in run_search(make_search(config(method=method, points=10, space=MIXED))):
        assert 0 <= point[PLW] <= 1
        assert 1e-5 <= point[RATE] <= 1e-3
        assert isinstance(point["schedule.steps"], int)
        assert 10 <= point["schedule.steps"] <= 20
        assert point["loss.normalization"] in ("weights", "tokens")


@pytest.mark.parametrize("method", ["random", "tpe", pytest.param("gp", marks=pytest.mark.slow)])
def test_every_point_meets_the_constraints(method: str) -> None:
    condition = f"{RATE} * schedule.steps <= 1e-3"
    points = run_search(
        make_search(config(method=method, points=8, space=MIXED, constraints=[condition]))
    )
    assert len(points) == 8
    assert all(point[RATE] * point["schedule.steps"] <= 1e-3 for point in points)


def test_unsatisfiable_constraints_end_the_search_with_a_reason() -> None:
    search = make_search(config(method="tpe", points=5, constraints=[f"{PLW} < 0"]))
    assert search.ask() is None
    assert search.ended == "no new point was found in 10000 draws that meets search.constraints"


@pytest.mark.parametrize("method", SAMPLED)
def test_a_small_space_ends_when_every_point_was_tried(method: str) -> None:
    space = {"loss.normalization": ["weights", "tokens"], "schedule.steps": {"low": 1, "high": 2}}
    search = make_search(config(method=method, points=9, space=space))
    points = []
    while point := search.ask():
        points.append(str(sorted(point.searched.items())))
        search.tell(point.number, Observation(point.searched, "done", (1.0,)))
    assert len(set(points)) == len(points) == 4
    assert search.ended == "every point of the space has been tried"


@pytest.mark.parametrize("method", SAMPLED)
def test_a_resumed_search_continues_without_repeating_points(method: str) -> None:
    whole = config(method=method, points=12, space=MIXED)
    before = run_search(make_search(config(method=method, points=8, space=MIXED)))
    search = make_search(whole, known=[done(point) for point in before], num_done=8)
    first = search.ask()
    assert first is not None
    assert first.number == 8
    search.tell(8, done(first.searched))
    after = [first.searched, *run_search(search)]
    assert len(after) == 4
    assert not [point for point in after if point in before]


def test_an_extended_random_search_equals_an_uninterrupted_one() -> None:
    before = run_search(make_search(config(method="random", points=5)))
    known = [done(point) for point in before]
    after = run_search(make_search(config(method="random", points=9), known=known, num_done=5))
    assert before + after == run_search(make_search(config(method="random", points=9)))


@pytest.mark.parametrize("method", SAMPLED)
def test_unfinished_points_come_first(method: str) -> None:
    unfinished = {PLW: 0.03}
    search = make_search(config(method=method, points=3), unfinished=[unfinished])
    assert run_search(search) == [unfinished, {PLW: 0.0}, {PLW: 1.0}]


@pytest.mark.parametrize("method", ["tpe", "gp"])
def test_a_warm_start_moves_the_search_to_the_best_region(
    method: str,
) -> None:
    space = {RATE: {"low": 1e-5, "high": 1e-3, "scale": "log"}, "schedule.steps": [10, 20]}
    known = [
        done({RATE: rate, "schedule.steps": 10}, abs(rate - 3e-4))
        for rate in (1e-5, 2e-5, 4e-5, 8e-5, 1.6e-4, 2.9e-4, 3.2e-4, 4e-4, 6e-4, 9e-4)
    ]
    # Outside of the space: known, but not used by the sampler.
    known.append(done({RATE: 5e-3, "schedule.steps": 10}, 0.0))
    search = make_search(config(method=method, points=8, space=space), known=known)
    rates = []
    while point := search.ask():
        rates.append(point.searched[RATE])
        search.tell(point.number, done(point.searched, abs(rates[-1] - 3e-4)))
    assert sum(1e-4 < rate < 9e-4 for rate in rates) >= 6


@pytest.mark.parametrize("method", SAMPLED)
def test_points_without_a_score_do_not_end_a_search(method: str) -> None:
    search = make_search(config(method=method, points=9, space=MIXED))
    ends = [
        ("stopped", None),
        ("failed", None),
        ("diverged", None),
        ("done", (float("nan"),)),
        ("done", (1.5,)),
    ]
    for turn in range(9):
        point = search.ask()
        assert point is not None
        state, values = ends[turn % 5]
        search.tell(point.number, Observation(point.searched, state, values))  # type: ignore[arg-type]
    assert search.ask() is None


@pytest.mark.parametrize("method", SAMPLED)
def test_a_multi_objective_search_runs_to_its_end(method: str) -> None:
    search = make_search(
        config(
            method=method,
            points=8,
            objectives=["heldout.choice", "heldout_completion_loss"],
        ),
        known=[Observation({PLW: 0.5}, "done", (0.3, 2.0))],
        num_done=1,
    )
    points: list[dict[str, Any]] = []
    while point := search.ask():
        points.append(point.searched)
        at = w_p(point.searched[PLW])
        search.tell(point.number, done(point.searched, 1 - (at - 0.3) ** 2, (at - 0.7) ** 2))
    assert len(points) == 7
    assert {PLW: 0.5} not in points


def test_concurrent_points_differ_and_can_end_in_any_order() -> None:
    search = make_search(config(method="gp", points=8, space=MIXED))
    running: list[Point] = []
    seen: list[dict[str, Any]] = []
    while True:
        while len(running) < 4 and (point := search.ask()):
            assert point.searched not in seen
            seen.append(point.searched)
            running.append(point)
        if not running:
            break
        point = running.pop()
        search.tell(point.number, done(point.searched))
    assert len(seen) == 8


def run_noisy_search(method: str, num_seeds: int, within: float, effect: float = 1.0) -> Search:
    """Run a search of up to 14 points with noise of sd 0.02 and an offset for each seed."""
    search = make_search(config(method=method, points=14, stop_when_plw_within=within))
    rng = random.Random(0)
    while point := search.ask():
        by_seed = {
            str(seed): (effect * loss(point.searched) + 0.1 * seed + rng.gauss(0, 0.02),)
            for seed in range(num_seeds)
        }
        mean = fmean(values[0] for values in by_seed.values())
        known = by_seed if num_seeds > 1 else {}
        search.tell(point.number, Observation(point.searched, "done", (mean,), known))
    return search


@pytest.mark.parametrize("num_seeds", [1, 3])
@pytest.mark.parametrize("method", ["tpe", "gp"])
def test_a_search_ends_when_the_best_plw_is_known_within_the_limit(
    method: str, num_seeds: int
) -> None:
    search = run_noisy_search(method, num_seeds, 0.05)
    assert search.ended is not None
    assert search.ended.startswith(
        "search.stop_when_plw_within is met: by heldout_completion_loss, best PLW 0."
    )


def test_a_search_without_an_effect_does_not_end_early() -> None:
    assert run_noisy_search("gp", 3, 0.49, effect=0.0).ended is None


def test_the_confidence_set_of_means_extends_to_the_tried_neighbours() -> None:
    """A single better weight is no parabola, so only tried weights are compared."""
    points = [
        Observation(
            {PLW: plw},
            "done",
            (value,),
            {str(seed): (value + 0.1 * seed + 0.002 * (-1) ** (seed + number),)
             for seed in range(3)},
        )
        for number, (plw, value) in enumerate(
            [(0.0, 2.0), (0.01, 2.0), (0.05, 2.0), (0.1, 1.0), (0.5, 2.0), (1.0, 2.0)]
        )
    ]  # fmt: skip
    options: Any = {"objective": "heldout_completion_loss", "higher_is_better": False}
    # From w_p(0.05) = 0.406 to w_p(0.5) = 0.812: the half width is 0.203.
    assert convergence_verdict(points, within=0.2, **options) is None
    found = convergence_verdict(points, within=0.21, **options)
    assert found is not None
    assert found.text == "best PLW 0.1 of the 6 tried"


@pytest.mark.slow
def test_searching_prints_nothing() -> None:
    code = (
        "from orchestrator.search.methods import make_search\n"
        "from orchestrator.search.points import Observation\n"
        "from orchestrator.spec.search_config import SearchConfig\n"
        "space = {'optimizer.learning_rate': {'low': 1e-5, 'high': 1e-3, 'scale': 'log'}}\n"
        "for method in ('random', 'tpe', 'gp'):\n"
        "    search = make_search(SearchConfig(method=method, points=7, space=space))\n"
        "    while point := search.ask():\n"
        "        search.tell(point.number, Observation(point.searched, 'done', (1.0,)))\n"
        "    search.ask()\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")


def names_imported(modules: Sequence[str]) -> set[str]:
    code = f"import sys, {', '.join(modules)}; print(*{{m.split('.')[0] for m in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_specs_and_grids_import_neither_ray_nor_optuna() -> None:
    loaded = names_imported(
        ["orchestrator.spec.sweep_spec", "orchestrator.search.methods", "orchestrator.search.space"]
    )
    assert loaded & {"ray", "optuna", "torch", "scipy"} == set()


@pytest.mark.parametrize("method", ["tpe", "gp"])
def test_a_search_avoids_a_region_where_everything_diverges(method: str) -> None:
    space = {PLW: {"low": 0, "high": 1}, "optimizer.weight_decay": [0, 1e60]}
    search = make_search(config(method=method, points=16, space=space))
    decays = []
    while (point := search.ask()) is not None:
        decay = point.searched["optimizer.weight_decay"]
        decays.append(decay)
        values = None if decay else (2.0 + point.searched[PLW],)
        state: Any = "diverged" if decay else "done"
        search.tell(point.number, Observation(point.searched, state, values))
    assert decays[8:].count(1e60) <= 2


def test_a_failed_point_has_no_value_and_a_diverged_one_the_worst_so_far() -> None:
    search = make_search(config(method="tpe", points=4))
    assert isinstance(search, SampledSearch)
    ends: list[tuple[Any, Any]] = [
        *[("done", (2.0,)), ("done", (3.0,)), ("failed", None), ("diverged", None)]
    ]
    for state, values in ends:
        point = search.ask()
        assert point is not None
        search.tell(point.number, Observation(point.searched, state, values))
    recorded = [(trial.state.name, trial.values) for trial in search._study.trials]
    assert recorded == [
        ("COMPLETE", [2.0]),
        ("COMPLETE", [3.0]),
        ("FAIL", None),
        ("COMPLETE", [3.0]),
    ]
