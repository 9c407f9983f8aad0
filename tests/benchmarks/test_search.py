"""benchmarks.search: curves, regret, hypervolume and p-values."""

import json

import pytest

from benchmarks.search import (
    Setting,
    hypervolume_of,
    main,
    make_task,
    regret_of,
    rows,
    run_grid,
    run_search,
    score,
)

SETTING = Setting(trials=12, concurrency=4, reference=0.4)


def test_the_curve_has_its_maximum_at_the_given_position() -> None:
    assert score(0.5, 0.5) == pytest.approx(0.6859, abs=1e-4)
    assert score(0.0, 0.5) == score(1.0, 0.5) == pytest.approx(0.4280, abs=1e-4)


def test_the_curves_of_a_seed_are_the_same_under_any_noise() -> None:
    low, high = make_task(5, 0.01, 2, 12), make_task(5, 0.03, 2, 12)
    assert low.best == high.best
    assert 0.2 <= min(low.best) <= max(low.best) <= 0.9
    assert high.noise == pytest.approx(3 * low.noise)


def test_regret_is_near_zero_without_noise() -> None:
    task = make_task(1, 0.0, 1, 12)
    assert 0 <= regret_of(task, run_grid(task, SETTING)) < 5e-4
    assert 0 <= regret_of(task, run_search(task, "tpe", SETTING)) < 5e-4


def test_every_search_has_the_same_number_of_trials() -> None:
    task = make_task(2, 0.01, 1, 12)
    assert len(run_grid(task, SETTING)) == len(run_search(task, "random", SETTING)) == 12


def test_hypervolume_counts_the_area_above_the_reference() -> None:
    task = make_task(3, 0.0, 2, 12)
    here = task.scores(0.5)
    expected = max(here[0] - 0.4, 0) * max(here[1] - 0.4, 0)
    assert hypervolume_of(task, [(0.5, here)], 0.4) == pytest.approx(expected)
    assert hypervolume_of(task, [(0.5, here)], 0.99) == 0.0


def test_a_row_takes_the_larger_of_both_p_values() -> None:
    regret = [{"random": 3.0 + i, "grid": 1.0, "tpe": 1.0 + i % 2, "gp": 0.5} for i in range(20)]
    volume = [{"random": 1.0, "tpe": 2.0 + i, "gp": 0.5} for i in range(20)]
    tpe, gp = rows(0.01, regret, volume)
    assert tpe["regret"] == 1.5
    assert tpe["p_value"] == tpe["p_value_grid"] > 0.5
    assert tpe["p_value_random"] < 1e-4
    assert tpe["hypervolume_p_value"] < 1e-4
    assert gp["p_value"] < 1e-4
    assert gp["hypervolume_p_value"] > 0.99


@pytest.mark.slow
def test_the_command_prints_a_row_for_each_method_and_noise(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The command limits its process to one thread, which must not reach the tests after it: models
    # trained with other numbers of threads differ in their last bits.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert main(["--json", "--seeds", "2", "--jobs", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["method"], row["noise_sd"]) for row in found] == [
        ("tpe", 0.01),
        ("gp", 0.01),
        ("tpe", 0.03),
        ("gp", 0.03),
    ]
    assert {"regret", "regret_random", "regret_grid", "p_value", "hypervolume_p_value"} <= set(
        found[0]
    )
