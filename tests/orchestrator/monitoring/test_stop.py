"""Tests of `plw stop`: requests to the driver of a running sweep."""

from pathlib import Path

import pytest

from orchestrator.record.folder import SweepFolder
from orchestrator.record.lock import is_running, sweep_lock
from tests.orchestrator.plw import plw, plw_json, refused
from tests.orchestrator.sweeps import trial, write_sweep
from trainers.foundation.errors import InputError

FROM_0 = "00s0 (PLW 0, seed 0), 001s0 (PLW 0.01, seed 0), 01s0 (PLW 0.1, seed 0)"


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    states = {0.0: "done", 0.01: "training", 0.1: "waiting", 1.0: "pending"}
    trials = [trial(plw, state=state) for plw, state in states.items()]  # type: ignore[arg-type]
    return write_sweep(tmp_path / "demo", trials, {})


def test_stop_requests_the_end_of_a_sweep(sweep: SweepFolder) -> None:
    with sweep_lock(sweep):
        output = plw("stop", sweep.root).output
        assert sweep.stop_requested(None)
        assert not sweep.stop_requested("001s0")
    assert output == (
        "stop requested for sweep demo: no more trials start, and running trials write a "
        "checkpoint and stop; plw sweep sweep.yaml resumes it\n"
        f"next: plw status {sweep.root}\n"
    )


@pytest.mark.parametrize(
    ("trial_id", "outcome"),
    [
        ("001s0", "it writes a checkpoint and stops; the sweep continues with the others"),
        ("01s0", "it will not start; the sweep continues with the others"),
        ("10s0", "it will not start; the sweep continues with the others"),
    ],
)
def test_stop_requests_the_end_of_one_trial(
    sweep: SweepFolder, trial_id: str, outcome: str
) -> None:
    with sweep_lock(sweep):
        output = plw_json("stop", sweep.root, trial_id)
        assert sweep.stop_requested(trial_id)
        assert not sweep.stop_requested(None)
    assert output == {
        "folder": str(sweep.root),
        "trial": trial_id,
        "outcome": f"stop requested for trial {trial_id}: {outcome}",
    }


def test_the_next_sweep_ignores_earlier_requests(sweep: SweepFolder) -> None:
    with sweep_lock(sweep):
        plw("stop", sweep.root)
        plw("stop", sweep.root, "001s0")
    with sweep_lock(sweep):
        assert not sweep.stop_requested(None)
        assert not sweep.stop_requested("001s0")


@pytest.mark.parametrize("trial_id", [(), ("001s0",)])
def test_stop_is_rejected_if_no_sweep_is_running(
    sweep: SweepFolder, trial_id: tuple[str, ...]
) -> None:
    with sweep_lock(sweep):
        pass
    assert refused("stop", sweep.root, *trial_id) == (
        f"error: {sweep.root}: no sweep is running in this folder; nothing to stop; "
        "plw sweep sweep.yaml resumes it"
    )
    assert not sweep.stop_requested(None)


def test_stop_of_a_finished_sweep_offers_no_resume(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "demo", [trial(0.0), trial(0.1, state="stopped")], {})
    assert refused("stop", sweep.root) == (
        f"error: {sweep.root}: no sweep is running in this folder; nothing to stop: all its "
        "trials are done"
    )


def test_an_ended_trial_cannot_be_stopped(sweep: SweepFolder) -> None:
    with sweep_lock(sweep):
        assert refused("stop", sweep.root, "00s0") == (
            f"error: {sweep.root}: trial 00s0 is already done; give a pending or running "
            "trial, listed by plw status"
        )
    assert not sweep.stop_requested("00s0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", f"no trial '7'; give an id: {FROM_0}, 10s0"),
        ("0", f"3 trials begin with '0'; give a longer prefix: {FROM_0}"),
        ("", f"no trial ''; give an id: {FROM_0}, 10s0"),
    ],
)
def test_an_unknown_or_ambiguous_id_is_rejected(
    sweep: SweepFolder, text: str, expected: str
) -> None:
    with sweep_lock(sweep):
        assert refused("stop", sweep.root, text) == f"error: {sweep.root}: {expected}"


def test_a_prefix_of_an_id_selects_a_trial(sweep: SweepFolder) -> None:
    with sweep_lock(sweep):
        assert plw_json("stop", sweep.root, "001")["trial"] == "001s0"


def test_is_running_is_true_only_while_a_sweep_holds_the_lock(sweep: SweepFolder) -> None:
    assert not is_running(sweep)
    with sweep_lock(sweep):
        assert is_running(sweep)
        with pytest.raises(InputError, match="another sweep is running"), sweep_lock(sweep):
            pass
        assert is_running(sweep)
    assert not is_running(sweep)


def test_an_id_is_named_with_all_searched_settings(tmp_path: Path) -> None:
    searched = {"loss.role_weights.tool": 0.5, "seed": 2}
    sweep = write_sweep(tmp_path / "demo", [trial(0.1, seed=2, searched=searched)], {})
    assert "(PLW 0.1, tool 0.5, seed 2)" in refused("logs", sweep.root, "x")
