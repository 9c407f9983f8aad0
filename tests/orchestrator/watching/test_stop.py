"""`plw stop`: requests that the driver of a running sweep finds."""

from pathlib import Path

import pytest

from orchestrator.record.folder import SweepFolder
from orchestrator.record.lock import is_running, only_sweep_in
from tests.orchestrator.plw import plw, plw_json, refused
from tests.orchestrator.sweeps import trial, write_sweep
from trainers.foundation.errors import InputError


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    states = {0.0: "done", 0.01: "training", 0.1: "waiting", 1.0: "pending"}
    trials = [trial(plw, state=state) for plw, state in states.items()]  # type: ignore[arg-type]
    return write_sweep(tmp_path / "demo", trials, {})


def test_a_sweep_is_asked_to_stop(sweep: SweepFolder) -> None:
    with only_sweep_in(sweep):
        output = plw("stop", sweep.root).output
        assert sweep.stop_requested(None)
        assert not sweep.stop_requested("001s0")
    assert output == (
        "asked the sweep demo to stop: no more trials start, those that run write a checkpoint "
        f"and end; plw sweep sweep.yaml goes on\nnext: plw status {sweep.root}\n"
    )


@pytest.mark.parametrize(
    ("trial_id", "outcome"),
    [
        ("001s0", "it writes a checkpoint and ends; the sweep goes on with the others"),
        ("01s0", "it will not be started; the sweep goes on with the others"),
        ("10s0", "it will not be started; the sweep goes on with the others"),
    ],
)
def test_one_trial_is_asked_to_stop(sweep: SweepFolder, trial_id: str, outcome: str) -> None:
    with only_sweep_in(sweep):
        asked = plw_json("stop", sweep.root, trial_id)
        assert sweep.stop_requested(trial_id)
        assert not sweep.stop_requested(None)
    assert asked == {
        "folder": str(sweep.root),
        "trial": trial_id,
        "outcome": f"asked trial {trial_id} to stop: {outcome}",
    }


def test_the_next_sweep_forgets_what_was_asked_of_the_last(sweep: SweepFolder) -> None:
    with only_sweep_in(sweep):
        plw("stop", sweep.root)
        plw("stop", sweep.root, "001s0")
    with only_sweep_in(sweep):
        assert not sweep.stop_requested(None)
        assert not sweep.stop_requested("001s0")


@pytest.mark.parametrize("trial_id", [(), ("001s0",)])
def test_where_no_sweep_runs_there_is_nothing_to_stop(
    sweep: SweepFolder, trial_id: tuple[str, ...]
) -> None:
    with only_sweep_in(sweep):
        pass
    assert refused("stop", sweep.root, *trial_id) == (
        f"error: {sweep.root}: no sweep is running in this folder; nothing to stop; "
        "plw sweep sweep.yaml goes on with what is not done"
    )
    assert not sweep.stop_requested(None)


def test_a_trial_that_has_ended_cannot_be_stopped(sweep: SweepFolder) -> None:
    with only_sweep_in(sweep):
        assert refused("stop", sweep.root, "00s0") == (
            f"error: {sweep.root}: trial 00s0 is done already; give one that is pending or "
            "running; plw status lists them"
        )
    assert not sweep.stop_requested("00s0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", "no trial '7'; give an id: 00s0, 001s0, 01s0, 10s0"),
        ("0", "3 trials begin with '0'; give more of an id: 00s0, 001s0, 01s0"),
        ("", "no trial ''; give an id: 00s0, 001s0, 01s0, 10s0"),
    ],
)
def test_an_id_that_names_no_single_trial_is_refused(
    sweep: SweepFolder, text: str, expected: str
) -> None:
    with only_sweep_in(sweep):
        assert refused("stop", sweep.root, text) == f"error: {sweep.root}: {expected}"


def test_the_beginning_of_an_id_names_a_trial(sweep: SweepFolder) -> None:
    with only_sweep_in(sweep):
        assert plw_json("stop", sweep.root, "001")["trial"] == "001s0"


def test_watchers_do_not_take_each_other_for_a_sweep(sweep: SweepFolder) -> None:
    assert not is_running(sweep)
    with only_sweep_in(sweep):
        assert is_running(sweep)
        with pytest.raises(InputError, match="another sweep is running"), only_sweep_in(sweep):
            pass
        assert is_running(sweep)
    assert not is_running(sweep)
