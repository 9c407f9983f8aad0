"""Tests of `plw logs` for a trial, the sweep and the untuned model, and of --follow."""

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.monitoring.logs import find_log, follow, last_lines
from orchestrator.record.folder import SweepFolder
from orchestrator.record.lock import sweep_lock
from tests.orchestrator.plw import plw, plw_json, refused
from tests.orchestrator.sweeps import trial, write_sweep
from trainers.foundation.files import write_text


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    running, pending = trial(0.1, state="training"), trial(1.0, state="pending")
    folder = write_sweep(tmp_path / "runs" / "demo", [running, pending], {})
    write_text(folder.trial("01s0") / "log.txt", "one\ntwo\nthree\n")
    write_text(folder.log, "Ray is here\n")
    return folder


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (("01s0",), "one\ntwo\nthree\n"),
        (("01",), "one\ntwo\nthree\n"),
        (("01s0", "-n", 2), "two\nthree\n"),
        (("01s0", "-n", 9), "one\ntwo\nthree\n"),
        (("01s0", "-n", 0), ""),
        (("sweep",), "Ray is here\n"),
    ],
)
def test_a_log_is_printed(sweep: SweepFolder, arguments: tuple[object, ...], output: str) -> None:
    trial_id, *options = arguments
    assert plw("logs", sweep.root, trial_id, *options).output == output


def test_a_log_as_json(sweep: SweepFolder) -> None:
    path = str(sweep.root / "trials" / "01s0" / "log.txt")
    assert plw_json("logs", sweep.root, "01s0", "-n", 1) == {"path": path, "lines": ["three"]}


def test_the_most_recently_started_sweep_is_the_default(
    sweep: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = write_sweep(tmp_path / "runs" / "later", [trial(0.1)], {})
    write_text(later.trial("01s0") / "log.txt", "later\n")
    monkeypatch.chdir(tmp_path)
    assert plw("logs", "01s0").output == "later\n"


def test_without_any_sweep_there_is_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused("logs") == "error: runs: no sweep in this folder; give the folder of a sweep"


def test_a_pending_trial_has_no_log(sweep: SweepFolder) -> None:
    assert refused("logs", sweep.root, "10s0") == (
        f"error: {sweep.trial('10s0')}/log.txt: no log yet: the trial has not started; "
        "wait for it with --follow, or check plw status"
    )


def test_an_unknown_trial_is_rejected_with_the_ids(sweep: SweepFolder) -> None:
    assert refused("logs", sweep.root, "x") == (
        f"error: {sweep.root}: no trial 'x'; give an id: 01s0 (PLW 0.1, seed 0), 10s0"
    )


def test_json_with_follow_is_rejected(sweep: SweepFolder) -> None:
    assert "--json does not work with --follow" in refused(
        "logs", sweep.root, "01s0", "-f", "--json"
    )


def test_the_log_of_the_untuned_model(sweep: SweepFolder) -> None:
    assert "no untuned model log yet" in refused("logs", sweep.root, "untuned")
    write_text(sweep.root / "bases" / "0f1e2d3c" / "log.txt", "scoring\n")
    assert plw("logs", sweep.root, "untuned").output == "scoring\n"
    write_text(sweep.root / "bases" / "ffffffff" / "log.txt", "scoring\n")
    assert "several untuned models were scored" in refused("logs", sweep.root, "untuned")


def test_the_last_lines_of_a_long_log_without_a_final_newline(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    lines = [f"{number:>9}" for number in range(20_000)]
    path.write_text("\n".join(lines))
    assert last_lines(path, 15_000)[0] == "\n".join(lines[-15_000:])
    assert last_lines(path, 1)[0] == lines[-1]


def test_a_log_is_followed_until_its_trial_ends(sweep: SweepFolder) -> None:
    log = find_log(sweep, "01s0")
    with sweep_lock(sweep):
        added = follow(sweep, log, log.path.stat().st_size)
        with log.path.open("a") as file:
            file.write("four\n")
        assert next(added) == "four\n"
        write_text(log.path, "again\n")
        assert next(added) == "again\n"
        sweep.write_trial(trial(0.1))
        with log.path.open("a") as file:
            file.write("the end\n")
        assert list(added) == ["the end\n"]


@pytest.mark.slow
def test_follow_prints_new_lines_while_the_sweep_runs(sweep: SweepFolder) -> None:
    command = [sys.executable, "-m", "orchestrator.cli.main", "logs", str(sweep.root), "01s0", "-f"]
    with sweep_lock(sweep):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == ["one\n", "two\n", "three\n"]
        with (sweep.trial("01s0") / "log.txt").open("a") as file:
            file.write("four\n")
        assert process.stdout.readline() == "four\n"
    assert process.communicate(timeout=60) == ("", None)
    assert process.returncode == 0
