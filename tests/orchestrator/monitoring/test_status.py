"""Tests of `plw status`: incremental reads, remaining time, long tables and --watch."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.analysis.sweep_findings import read_findings
from orchestrator.monitoring.status import (
    count_states,
    format_duration,
    remaining_s,
    select_notable,
    summary,
)
from orchestrator.monitoring.sweep_list import summarize_sweep
from orchestrator.record.folder import STOP_REQUESTED, SweepFolder, TrialRecord
from orchestrator.record.lock import is_running, sweep_lock
from orchestrator.record.reader import SweepReader, TrialStatus, last_metrics
from tests.orchestrator.large import write_large_sweep
from tests.orchestrator.plw import plw, plw_json
from tests.orchestrator.sweeps import (
    DEMO,
    card,
    sweep_record,
    trial,
    write_card,
    write_metrics,
    write_sweep,
)
from trainers.foundation.files import write_text

DEADLINE_S = 60


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    waiting = trial(1.0, state="waiting").model_copy(update={"note": "no node has 8 GPUs yet"})
    trials = [trial(0.0), trial(0.1, state="training"), waiting]
    return write_sweep(tmp_path / "demo", trials, {"00s0": card(DEMO[0.0])})


@pytest.fixture
def large(tmp_path: Path) -> SweepFolder:
    return write_large_sweep(tmp_path / "large", 100, 4)


def test_only_changed_trials_are_read_again(sweep: SweepFolder) -> None:
    reader = SweepReader(sweep)
    assert reader.refresh() == ["00s0", "01s0", "10s0"]
    before = reader.statuses()
    assert reader.refresh() == []
    write_metrics(sweep, "01s0", range(1, 13))
    assert reader.refresh() == ["01s0"]
    after = reader.statuses()
    assert after[0] is before[0]
    assert (before[1].step, after[1].step) == (4, 12)
    write_card(sweep.trial("00s0"), card(DEMO[1.0]))
    assert reader.refresh() == ["00s0"]
    assert reader.statuses()[0].heldout_loss == 2.611


def test_speed_of_a_finished_trial_is_that_of_the_report(tmp_path: Path) -> None:
    done = trial(0.0).model_copy(update={"tokens_per_second": 61.0})
    training = trial(0.1, state="training").model_copy(update={"tokens_per_second": 61.0})
    reader = SweepReader(write_sweep(tmp_path / "demo", [done, training], {}))
    reader.refresh()
    # The last logged step of both had 1234.5 tokens/s.
    assert [one.tokens_per_second for one in reader.statuses()] == [61.0, 1234.5]


def test_trials_that_are_added_later_appear(sweep: SweepFolder) -> None:
    reader = SweepReader(sweep)
    reader.refresh()
    sweep.write_trial(trial(0.5, state="pending"))
    sweep.write_sweep(sweep_record(["00s0", "05s0"]))
    assert reader.refresh() == ["05s0"]
    assert [one.id for one in reader.statuses()] == ["00s0", "05s0"]


def test_the_last_metrics_of_a_long_file_are_found(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": 1.5}) for step in range(1, 2001)]
    write_text(path, "\n".join(lines) + '\n{"step": 2001, "lo')
    assert last_metrics(path) == {"step": 2000, "loss": 1.5}
    assert last_metrics(tmp_path / "none") == {}


def test_a_sweep_is_summarized_in_a_line(sweep: SweepFolder) -> None:
    reader = SweepReader(sweep)
    reader.refresh()
    trials = reader.statuses()
    # 44 of 48 steps of 4096 tokens at 1234.5 per second, then a trial of 201.4 + 31.2 seconds.
    assert remaining_s(trials) == pytest.approx(44 * 4096 / 1234.5 + 232.6)
    assert summary(trials) == "1 of 3 done, 1 running, 1 waiting, about 6m19s left"
    assert summary([trials[0]]) == "1 of 1 done"
    assert summary([trials[2]]) == "0 of 1 done, 1 waiting"


def test_trials_that_a_search_has_yet_to_choose_are_pending(tmp_path: Path) -> None:
    search = {"method": "tpe", "points": 5, "seeds": [0, 1]}
    spec = sweep_record([]).spec | {"search": search}
    opened = [trial(0.0), trial(0.0, seed=1)]
    sweep = write_sweep(tmp_path / "s", opened, {}, spec=spec, end_reason=STOP_REQUESTED)
    lines = plw("status", sweep.root).stdout.splitlines()
    assert "sweep demo: 2 of 10 done, 8 pending" in lines[0]
    assert lines[-1] == "the sweep is not running; to continue: plw sweep sweep.yaml"
    assert read_findings(sweep).trials.unfinished == 8
    assert summarize_sweep(sweep).num_trials == 10
    sweep.write_sweep(sweep.read_sweep().model_copy(update={"end_reason": "budget is spent"}))
    output = plw("status", sweep.root).stdout
    assert "sweep demo: 2 of 2 done" in output
    assert "to continue" not in output


def test_a_long_error_is_cut_between_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    error = "torch ran out of memory: " + "allocated (12345 MiB) " * 3
    sweep = write_sweep(tmp_path / "s", [trial(0.0, state="failed", error=error)], {})
    assert "failed: torch ran out of memory: allocated (12345 MiB) allocated ... │" in " ".join(
        plw("status", sweep.root).stdout.split()
    )


def test_the_status_of_a_killed_sweep_says_what_to_type(sweep: SweepFolder) -> None:
    assert plw("status", sweep.root).stdout.splitlines()[-1] == (
        "the sweep is not running; to continue: plw sweep sweep.yaml"
    )
    with sweep_lock(sweep):
        assert "to continue" not in plw("status", sweep.root).stdout


def test_without_finished_trials_the_time_is_estimated_from_running_ones(
    sweep: SweepFolder,
) -> None:
    reader = SweepReader(sweep)
    reader.refresh()
    _, running, waiting = reader.statuses()
    # The rest of the running trial, and 48 steps for the other.
    assert remaining_s([running, waiting]) == pytest.approx((44 + 48) * 4096 / 1234.5)


def scored_concurrently(one: TrialRecord, **changes: object) -> TrialRecord:
    return one.model_copy(update={"is_scored_beside": True, **changes})


def statuses(folder: Path, *trials: TrialRecord) -> list[TrialStatus]:
    done = {one.id: card(DEMO[0.0]) for one in trials if one.state == "done"}
    reader = SweepReader(write_sweep(folder / "demo", trials, done))
    reader.refresh()
    return reader.statuses()


def test_trials_with_concurrent_scoring_hold_no_workers(tmp_path: Path) -> None:
    found = statuses(
        tmp_path,
        scored_concurrently(trial(0.0)),
        trial(0.1, state="training"),
        scored_concurrently(trial(0.2, state="scoring")),
        scored_concurrently(trial(0.3, state="scoring"), note="waits for a scorer"),
        trial(0.4, state="waiting"),
        trial(0.5, state="waiting"),
    )
    # One trial at a time: the rest of the running one, two of 201.4 s each, and the last scores.
    assert remaining_s(found) == pytest.approx(44 * 4096 / 1234.5 + 2 * 201.4 + 31.2)


def test_queued_scorings_run_one_after_another(tmp_path: Path) -> None:
    scored = [scored_concurrently(trial(plw, state="scoring")) for plw in (0.2, 0.3)]
    waiting = [scored_concurrently(one, note="waits for a scorer") for one in scored[1:]]
    found = statuses(tmp_path, scored_concurrently(trial(0.0)), scored[0], *waiting)
    assert remaining_s(found) == pytest.approx(2 * 31.2)
    assert remaining_s(found[1:]) is None


def test_without_scorers_a_trial_holds_its_workers_while_it_is_scored(tmp_path: Path) -> None:
    found = statuses(
        tmp_path,
        trial(0.0),
        trial(0.1, state="scoring"),
        trial(0.2, state="scoring"),
        trial(0.3, state="waiting"),
    )
    # Two at a time, three trials of 232.6 seconds, of which two have started.
    assert remaining_s(found) == pytest.approx(3 * 232.6 / 2)


def test_no_estimate_while_trials_wait_for_workers_and_none_trains(tmp_path: Path) -> None:
    found = statuses(
        tmp_path,
        scored_concurrently(trial(0.0)),
        scored_concurrently(trial(0.1, state="scoring")),
        trial(1.0, state="waiting"),
    )
    assert remaining_s(found) is None


def test_a_waiting_trial_shows_the_reason(sweep: SweepFolder) -> None:
    output = plw("status", sweep.root).output
    assert output.startswith("sweep demo: 1 of 3 done, 1 running, 1 waiting, about 6m19s left")
    assert "waiting: no node has 8 GPUs yet" in output
    row = plw_json("status", sweep.root)[2]
    assert (row["state"], row["note"]) == ("waiting", "no node has 8 GPUs yet")


def test_a_long_table_shows_notable_trials_and_counts_the_rest(large: SweepFolder) -> None:
    output = plw("status", large.root).output
    assert output.startswith("sweep demo: 80 of 100 done, 5 running, 5 waiting, 5 pending, 5 faile")
    assert "and 76 more: 70 done, 1 waiting, 5 pending (--all shows them)" in output
    everything = plw("status", large.root, "--all").output
    assert "--all" not in everything
    assert all(f"{index:010x}" in everything for index in range(100))
    assert len(plw_json("status", large.root)) == 100


def test_each_notable_trial_is_in_one_group(large: SweepFolder) -> None:
    better = DEMO[0.1] | {"heldout_completion_loss": (1.5, 1.4, 1.6)}
    write_card(large.trial(f"{40:010x}"), card(better))
    last = large.read_trial(f"{41:010x}")
    assert last is not None
    large.write_trial(last.model_copy(update={"ended_at": "2026-11-22T18:00:00+00:00"}))
    reader = SweepReader(large)
    reader.refresh()
    groups = dict(select_notable(reader.statuses()))
    assert list(groups) == ["running", "waiting", "failed", "lowest loss", "latest"]
    assert [len(members) for members in groups.values()] == [5, 4, 5, 5, 5]
    assert groups["lowest loss"][0].id == f"{40:010x}"
    assert groups["latest"][0].id == f"{41:010x}"
    assert len({one.id for members in groups.values() for one in members}) == 24
    assert count_states(reader.statuses())["interrupted"] == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (9.4, "9s"), (70, "1m10s"), (3599.6, "1h00m"), (11_400, "3h10m")],
)
def test_durations_are_formatted(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text


def test_watch_shows_a_sweep_that_is_not_running_once(sweep: SweepFolder) -> None:
    lines = plw("status", sweep.root, "--watch").output.splitlines()
    assert [line.partition("] ")[2] for line in lines[:3]] == [
        "PLW 0  done  (00s0)",
        "PLW 0.1  step 4/48  completion loss 0.750  prompt loss -  1234 tokens/s  2m26s left",
        "PLW 1  waiting: no node has 8 GPUs yet",
    ]
    assert lines[3:] == [
        "1 of 3 done, 1 running, 1 waiting, about 6m19s left",
        "no sweep is running in this folder",
    ]


@pytest.mark.slow
def test_watch_prints_changes_until_the_sweep_ends(sweep: SweepFolder) -> None:
    command = [sys.executable, "-m", "orchestrator.cli.main", "status", str(sweep.root), "--watch"]
    with sweep_lock(sweep):
        options = ["--interval", "0.1", "--json"]
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert [row["id"] for row in first["changed"]] == ["00s0", "01s0", "10s0"]
        sweep.write_trial(trial(0.1))
        second = json.loads(process.stdout.readline())
        assert [(row["id"], row["state"]) for row in second["changed"]] == [("01s0", "done")]
        assert (second["counts"]["done"], second["counts"]["running"]) == (2, 0)
    assert process.wait(DEADLINE_S) == 0


@pytest.mark.slow
def test_ctrl_c_ends_the_watch_but_not_the_sweep(sweep: SweepFolder) -> None:
    for arguments in (
        ["status", str(sweep.root), "--watch"],
        ["logs", str(sweep.root), "01", "-f"],
    ):
        command = [sys.executable, "-m", "orchestrator.cli.main", *arguments]
        with sweep_lock(sweep):
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                # A background shell may have set SIGINT to be ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
            )
            assert process.stdout is not None
            assert process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=DEADLINE_S)
            assert (process.returncode, errors) == (0, "")
            assert is_running(sweep)


def test_a_refresh_of_a_thousand_unchanged_trials_is_fast(tmp_path: Path) -> None:
    """Measure a refresh without changes, with a wide margin for slow disks."""
    folder = write_large_sweep(tmp_path / "large", 1000, 4)
    reader = SweepReader(folder)
    assert len(reader.refresh()) == 1000
    began = time.monotonic()
    assert reader.refresh() == []
    assert time.monotonic() - began < 1.0
