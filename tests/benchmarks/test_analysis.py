"""The simulated studies and what they measure, at a size that a test can wait for."""

import json

import pytest

from benchmarks.analysis import ANSWERS, DESIGNS, coverage_of, false_effects, main
from benchmarks.studies import GROUP_OF, Design, simulate
from orchestrator.statistics.trial_points import OVERALL


def test_a_study_is_the_same_each_time_and_knows_its_truth() -> None:
    study = simulate(DESIGNS[0], 3)
    assert study.rows == simulate(DESIGNS[0], 3).rows
    assert len(study.rows) == 6 * 3 * len(GROUP_OF)
    assert 0 <= study.best(OVERALL) <= 1
    flat = simulate(DESIGNS[0], 3, has_effect=False)
    assert flat.rise(OVERALL, 1.0) == 0


def test_the_best_lies_inside_near_and_beyond_the_range() -> None:
    vertices = [simulate(Design("one", plws=(0,), seeds=1), seed).vertex(OVERALL)
                for seed in range(100)]  # fmt: skip
    assert sum(vertex > 1 for vertex in vertices) > 3
    assert sum(vertex < 0 for vertex in vertices) > 3
    assert sum(0.15 < vertex < 0.85 for vertex in vertices) > 40


def test_a_place_where_no_top_lies_has_no_coverage() -> None:
    design = Design("one", seeds=1)
    assert all(0.85 < simulate(design, 0).vertex(name) < 1 for name in ANSWERS)
    found = coverage_of(design, 1)
    assert found["share_by_place"] == {"inside": 0, "near an end": 1, "beyond an end": 0}
    assert found["coverage_by_place"]["near an end"] is not None
    assert found["coverage_by_place"]["inside"] is None
    assert found["coverage_by_place"]["beyond an end"] is None


@pytest.mark.slow
def test_intervals_hold_the_best_and_no_effect_is_seldom_claimed() -> None:
    found = coverage_of(DESIGNS[0], 300)
    # Four standard errors of a share of 300.
    assert all(0.90 <= share <= 0.995 for share in found["coverage"].values())
    assert false_effects(DESIGNS[0], 300) <= 0.1


@pytest.mark.slow
def test_the_benchmark_prints_what_is_asked_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--studies", "4", "--other-studies", "2", "--paper-studies", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["glmm_largest_difference"] < 1e-3
    assert found["critical_plw"] == pytest.approx(0.242, abs=5e-4)
    assert 0 <= found["coverage"] <= 1
    assert 0 <= found["false_effect_rate"] <= 1
    assert main(["--studies", "2", "--other-studies", "2", "--paper-studies", "2"]) == 0
    assert "false effects" in capsys.readouterr().out
    assert main(["--studies", "1"]) == 2
