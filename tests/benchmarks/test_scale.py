"""benchmarks.scale: figures from the times at which trials held their GPUs, and a small run."""

import json
from typing import Any

import pytest

from benchmarks.scale import busy_share, full_since, growth_mb, main, summary, turnarounds


def trial(group: int, held: float, released: float) -> dict[str, float]:
    return {"group": group, "held": held, "released": released}


# Two slots: the second fills at 5 and idles from 20 to 24; the last trial starts at 30.
TRIALS = [
    trial(1, 1, 15),
    trial(2, 5, 20),
    trial(1, 15, 30),
    trial(2, 24, 40),
    trial(1, 30, 45),
]


def sample(time: float, megabytes: float, cpu_s: float = 0.0) -> dict[str, Any]:
    return {
        "time": time,
        "memory_mb": {"ray": megabytes, "sweep": 0.0, "drivers": 0.0},
        "cpu_s": {"gcs": cpu_s, "sweep": 2 * cpu_s},
        "load": 1.0,
    }


def test_slots_are_full_once_as_many_trials_hold_their_gpus() -> None:
    assert full_since(TRIALS, 2) == 5
    assert full_since(TRIALS, 1) == 1


def test_slots_that_never_filled_at_once_are_not_full() -> None:
    assert full_since(TRIALS, 3) is None
    assert full_since([], 1) is None


def test_a_trial_that_ends_as_another_starts_does_not_overlap_it() -> None:
    assert full_since([trial(1, 0, 10), trial(1, 10, 20)], 2) is None


def test_an_idle_slot_lowers_the_busy_share() -> None:
    # 46 of 2 x 25 seconds: 4 are idle, from 20 to 24.
    assert busy_share(TRIALS, 2, 5, 30) == pytest.approx(0.92)


def test_turnaround_is_between_consecutive_trials_of_a_slot() -> None:
    assert sorted(turnarounds(TRIALS)) == [0, 0, 4]


def test_growth_is_from_the_first_to_the_last_fifth() -> None:
    samples = [sample(second, 100 + 10 * second) for second in range(10)]
    assert growth_mb(samples, 0, 9) == pytest.approx(80)
    assert growth_mb(samples, 0, 2) is None


def test_a_summary_counts_from_full_slots_to_the_last_start() -> None:
    job = {"nodes": 4, "gpus_per_node": 8, "gpus_per_trial": 16, "seconds": 15.0, "minutes": 0.5}
    measured = {
        "job": job,
        "began": -10.0,
        "ended": 50.0,
        "trials": TRIALS,
        "samples": [sample(5, 900.4, 1.0), sample(15, 900, 1.5), sample(30, 950, 2.5)],
        "num_failed": 0,
        "nodes_alive": 3,
    }
    found = summary(measured)
    assert found["slots"] == 2
    assert found["nodes_lost"] == 1
    assert found["full_after_s"] == 15
    assert found["slots_busy"] == pytest.approx(0.92)
    # Three ended in the 25 seconds.
    assert found["trials_per_minute"] == pytest.approx(7.2)
    assert found["longest_turnaround_s"] == 4
    assert found["trials_per_slot"] == [2, 2]
    assert found["cpu_s_per_trial"] == {"gcs": pytest.approx(0.5), "sweep": pytest.approx(1.0)}
    assert found["head_memory_mb"][0] == {
        "s": 15.0, "total": 900, "ray": 900, "sweep": 0, "drivers": 0
    }  # fmt: skip


def test_a_run_whose_slots_never_filled_has_none_for_busy_slots() -> None:
    job = {"nodes": 64, "gpus_per_node": 8, "gpus_per_trial": 16, "seconds": 15.0, "minutes": 0.5}
    measured = {"job": job, "began": 0.0, "ended": 50.0, "trials": TRIALS, "samples": [],
                "num_failed": 0, "nodes_alive": 64}  # fmt: skip
    found = summary(measured)
    assert found["slots"] == 32
    assert found["slots_busy"] is None
    assert found["trials_per_minute"] is None


def test_a_trial_that_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nodes", "1", "--gpus-per-node", "8", "--gpus-per-trial", "16"]) == 2
    assert "no trial fits" in capsys.readouterr().err


@pytest.mark.slow
def test_four_simulated_nodes_are_kept_busy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nodes", "4", "--seconds", "5", "--minutes", "0.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["slots"] == 2
    assert found["trials_failed"] == 0
    assert found["nodes_lost"] == 0
    # A busy machine may fill both slots late, or never in half a minute.
    assert found["slots_busy"] is None or 0 < found["slots_busy"] <= 1
    assert found["trials"] >= 1
    for name in ("ray", "sweep", "drivers", "channels", "controllers", "other_actors"):
        assert max(sample[name] for sample in found["head_memory_mb"]) > 0, name
