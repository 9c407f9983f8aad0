"""Scorers that work while trials train, on a Ray node that reports four cores."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.plw import Workspace, kill_all, make_workspace, poll
from tests.e2e.ray_node import ray_node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NUM_STEPS = 60


@pytest.fixture(scope="module")
def head() -> Iterator["Head"]:
    with pytest.MonkeyPatch.context() as environment, ray_node(num_cpus=4) as node:
        # A separate node requires a token, so clients must send it.
        environment.setenv("RAY_AUTH_MODE", "token")
        yield Head(node.pid, node.address)


class Head:
    """A Ray node that reports four cores."""

    def __init__(self, pid: int, address: str) -> None:
        self.pid, self.address = pid, address

    def scorers_at_work(self) -> list[psutil.Process]:
        found = []
        for process in psutil.Process(self.pid).children(recursive=True):
            try:
                if "ray::Scorer.score" in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found


def two_trials(folder: Path, **resources: Any) -> Workspace:
    """Write a spec of two trials of two ranks, one at a time: two of four cores stay free."""
    return make_workspace(
        folder,
        resources={
            "workers_per_trial": 2,
            "cpus_per_worker": 1,
            "max_concurrent_trials": 1,
            **resources,
        },
        schedule={"steps": NUM_STEPS},
        search={"space": {"loss.prompt_loss_weight": [0, 0.1]}},
        # Four batches, so that a scorer is killed before it has finished.
        evals={"heldout_chrf": {"examples": 64, "max_new_tokens": 120, "invert": True}},
    )


def sweep(workspace: Workspace, head: Head) -> None:
    done = workspace.plw("sweep", "sweep.yaml", "--address", head.address, timeout_s=600)
    assert done.returncode == 0, done.stdout + done.stderr


def start(workspace: Workspace, head: Head) -> subprocess.Popen[str]:
    return workspace.start("sweep", "sweep.yaml", "--address", head.address)


def trial_folder(workspace: Workspace, index: int) -> Path:
    return workspace.sweep / "trials" / str(workspace.trials()[index]["id"])


def scores(workspace: Workspace) -> list[Any]:
    """Return scores and samples of both trials and of the untuned model."""
    [base] = (workspace.sweep / "bases").iterdir()
    folders = [trial_folder(workspace, 0), trial_folder(workspace, 1), base]
    cards = [json.loads((folder / "scores.json").read_text())["scores"] for folder in folders]
    return [cards, [(folder / "samples.jsonl").read_text() for folder in folders]]


def wait_for_scoring(workspace: Workspace, head: Head, driver: subprocess.Popen[str]) -> None:
    """Wait until a scorer works on the first trial; another scores the untuned model."""

    def is_at_work() -> bool:
        assert driver.poll() is None, driver.communicate()[0]
        trials = workspace.trials()
        if not trials or trials[0]["state"] != "scoring" or trials[0]["note"] is not None:
            return False
        return bool(head.scorers_at_work())

    poll(is_at_work, "the scoring of the first trial", timeout_s=400)


def check_trained_once(workspace: Workspace) -> None:
    """Assert that both trials are done and were trained once."""
    assert [t["state"] for t in workspace.trials()] == ["done", "done"]
    assert [t["attempts"] for t in workspace.trials()] == [1, 1]
    for index in range(2):
        lines = (trial_folder(workspace, index) / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [*range(1, NUM_STEPS + 1)]


class TestOverlap:
    @pytest.fixture(scope="class")
    def workspace(self, tmp_path_factory: pytest.TempPathFactory, head: Head) -> Workspace:
        workspace = two_trials(tmp_path_factory.mktemp("beside"))
        sweep(workspace, head)
        return workspace

    def test_a_trial_is_scored_while_the_next_one_trains(self, workspace: Workspace) -> None:
        check_trained_once(workspace)
        first, second = trial_folder(workspace, 0), trial_folder(workspace, 1)
        first_step = json.loads((second / "metrics.jsonl").read_text().splitlines()[0])["time"]
        assert (first / "train.json").stat().st_mtime < first_step
        assert first_step < (first / "scores.json").stat().st_mtime

    def test_the_untuned_model_is_scored_during_the_first_training(
        self, workspace: Workspace
    ) -> None:
        [base] = (workspace.sweep / "bases").iterdir()
        trained_at = (trial_folder(workspace, 0) / "train.json").stat().st_mtime
        scorer_began = (base / "log.txt").stat().st_mtime
        assert scorer_began < trained_at or (base / "scores.json").stat().st_mtime < trained_at

    def test_scorer_time_is_recorded(self, workspace: Workspace) -> None:
        first = workspace.trials()[0]
        assert 0 < first["eval_seconds"] <= first["scorer_seconds"]
        assert first["busy_seconds"] >= first["train_seconds"]

    def test_the_log_states_where_models_are_scored(self, workspace: Workspace) -> None:
        log = (workspace.sweep / "sweep.log").read_text()
        assert "models are scored by 1 process of 1 CPU, in parallel with the trials" in log

    def test_mlflow_has_the_scores(self, workspace: Workspace) -> None:
        children = [run for run in workspace.runs() if "mlflow.parentRunId" in run.data.tags]
        assert [run.info.status for run in children] == ["FINISHED", "FINISHED"]
        assert all("eval/heldout.choice" in run.data.metrics for run in children)

    def test_scorer_and_trial_worker_give_the_same_bits(
        self, workspace: Workspace, head: Head, tmp_path: Path
    ) -> None:
        alone = two_trials(tmp_path, scorers=0)
        sweep(alone, head)
        assert "scored by each trial's workers" in (alone.sweep / "sweep.log").read_text()
        assert scores(alone) == scores(workspace)


def test_a_killed_scorer_is_replaced_and_nothing_is_trained_again(
    tmp_path: Path, head: Head
) -> None:
    workspace = two_trials(tmp_path, scorers=2)
    driver = start(workspace, head)
    wait_for_scoring(workspace, head, driver)
    for process in head.scorers_at_work():
        process.kill()
    trained_at = (trial_folder(workspace, 0) / "train.json").stat().st_mtime
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    trial_id = workspace.trials()[0]["id"]
    log = (workspace.sweep / "sweep.log").read_text()
    assert f"scoring trial {trial_id} failed, retrying: the scoring process died" in log
    check_trained_once(workspace)
    assert (trial_folder(workspace, 0) / "train.json").stat().st_mtime == trained_at


@pytest.mark.parametrize("ended_by", ["SIGKILL", pytest.param("SIGINT", marks=pytest.mark.full)])
def test_a_trained_trial_is_scored_by_the_next_run_without_training(
    tmp_path: Path, head: Head, ended_by: str
) -> None:
    workspace = two_trials(tmp_path, scorers=2)
    driver = start(workspace, head)
    wait_for_scoring(workspace, head, driver)
    if ended_by == "SIGKILL":
        kill_all(driver)
    else:
        os.killpg(driver.pid, signal.SIGINT)
        output, _ = driver.communicate(timeout=600)
        assert driver.returncode == 130, output
        assert workspace.trials()[0]["state"] == "interrupted"
    assert not (trial_folder(workspace, 0) / "scores.json").exists()
    trained_at = (trial_folder(workspace, 0) / "train.json").stat().st_mtime
    sweep(workspace, head)
    assert [t["state"] for t in workspace.trials()] == ["done", "done"]
    assert workspace.trials()[0]["attempts"] == 1
    assert (trial_folder(workspace, 0) / "train.json").stat().st_mtime == trained_at
