"""Tests of `plw ls`: all sweeps of a folder with state, answer, cost and age."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.monitoring import sweep_list
from orchestrator.monitoring.sweep_list import format_age
from orchestrator.record.lock import sweep_lock
from tests.orchestrator.plw import plw, plw_json, refused
from tests.orchestrator.sweeps import trial, write_demo, write_hill, write_sweep


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed() -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in plw_json("ls")}


def test_sweeps_have_an_answer_in_a_few_words(here: Path) -> None:
    write_hill(here / "runs" / "hill")
    write_demo(here / "runs" / "demo")
    write_sweep(here / "runs" / "new", [trial(0.1, state="pending")], {})
    found = listed()
    assert list(found) == ["new", "demo", "hill"]
    assert found["hill"]["answer"].startswith("PLW 0.2")
    assert found["demo"]["answer"] == "cannot say"
    assert found["new"]["answer"] == "no scores yet"
    output = plw("ls").output
    assert "PLW 0.2" in output
    assert "21/21" in output


def test_sweeps_have_a_state_and_counts(here: Path) -> None:
    runs = here / "runs"
    write_sweep(runs / "failed", [trial(0, state="failed", error="e"), trial(1)], {})
    write_sweep(runs / "left", [trial(0), trial(1, state="interrupted")], {})
    write_sweep(runs / "budget", [trial(0), trial(1, state="pending")], {}, end_reason="budget")
    stopped = write_sweep(
        runs / "stopped", [trial(0), trial(1, state="pending")], {}, end_reason="s"
    )
    stopped.request_stop(None)
    running = write_sweep(runs / "running", [trial(0), trial(1, state="training")], {})
    (write_sweep(runs / "bad", [trial(0)], {}).trial("0s0") / "trial.json").write_text("{")
    with sweep_lock(running):
        found = listed()
    states = {
        name: (one["state"], one["num_done"], one["num_trials"]) for name, one in found.items()
    }
    assert states == {
        "failed": ("failed trials", 1, 2),
        "left": ("interrupted", 1, 2),
        "budget": ("done", 1, 2),
        "stopped": ("interrupted", 1, 2),
        "running": ("running", 1, 2),
        "bad": ("damaged", 0, 0),
    }
    assert "the record is damaged" in found["bad"]["answer"]


def test_cost_is_shown_in_gpu_hours_and_money_if_known(here: Path) -> None:
    held = trial(0.1).model_copy(update={"busy_seconds": 7200.0})
    write_sweep(here / "runs" / "cpu", [held], {})
    priced = write_sweep(here / "runs" / "gpu", [held], {})
    record = priced.read_sweep()
    resources = {"gpus_per_worker": 1, "workers_per_trial": 4, "price_per_gpu_hour": 2.5}
    priced.write_sweep(record.model_copy(update={"spec": record.spec | {"resources": resources}}))
    output = plw("ls").output
    assert " 2.0 h " in output
    assert " 8.0 GPU h, 20.00 " in output


def test_a_large_sweep_is_not_analysed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_list, "MAX_ANALYSED_TRIALS", 3)
    write_demo(here / "runs" / "demo")
    assert listed()["demo"]["answer"] is None
    assert "see plw report demo" in plw("ls").output


def test_another_folder_and_an_empty_one(here: Path) -> None:
    write_demo(here / "elsewhere" / "demo")
    assert [one["name"] for one in plw_json("ls", "elsewhere")] == ["demo"]
    assert plw("ls").output == "no sweeps in runs; plw init and plw sweep start one\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (4.2, "4s"), (61, "1m"), (7200, "2h"), (86400 * 12.4, "12d")],
)
def test_ages(seconds: float | None, text: str) -> None:
    assert format_age(seconds) == text


def test_a_folder_that_does_not_exist_is_an_error(here: Path) -> None:
    assert "nosuch: no such folder" in refused("ls", "nosuch")
