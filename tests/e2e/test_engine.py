"""The sweep engine beyond grids: TPE, early stopping, `plw stop`, budgets."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.e2e.plw import Workspace, make_workspace, poll
from trainers.foundation.files import sha256_file

pytestmark = pytest.mark.slow

PLW = "loss.prompt_loss_weight"
ONLY_HELDOUT = {"heldout_choice": None, "heldout_exact_match": None, "heldout_chrf": None}


def loss_weights_of(folder: Path) -> dict[str, str]:
    """Return digests of a model's weights by file name."""
    return {path.name: sha256_file(path) for path in (folder / "model").glob("*.safetensors")}


def change(workspace: Workspace, section: str, **values: Any) -> None:
    yaml = YAML()
    path = workspace.folder / "sweep.yaml"
    spec = yaml.load(path.read_text())
    spec.setdefault(section, {}).update(values)
    with path.open("w") as file:
        yaml.dump(spec, file)


class TestBayesianSearch:
    """TPE over the weight, two seeds per point, with early stopping."""

    @pytest.fixture(scope="class")
    def workspace(self, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
        workspace = make_workspace(
            tmp_path_factory.mktemp("bayes"),
            schedule={"steps": 12},
            evals=ONLY_HELDOUT,
            search={
                "method": "tpe",
                "space": {PLW: {"low": 0, "high": 1}},
                "points": 5,
                "seeds": [0, 1],
                "early_stopping": {"method": "asha", "first_step": 4, "reduction_factor": 2},
            },
        )
        done = workspace.plw("sweep", "sweep.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        return workspace

    def test_ten_trials_end_done_or_stopped(self, workspace: Workspace) -> None:
        trials = workspace.trials()
        assert len(trials) == 10
        assert {t["state"] for t in trials} <= {"done", "stopped"}
        assert [t["searched"][PLW] for t in trials[:4]] == [0, 0, 1, 1]

    def test_seeds_of_a_point_are_stopped_together(self, workspace: Workspace) -> None:
        states_by_point: dict[float, set[str]] = {}
        for trial in workspace.trials():
            states_by_point.setdefault(trial["searched"][PLW], set()).add(trial["state"])
        # A seed that ended before its point was stopped keeps its scores.
        assert all(states != {"stopped", "training"} for states in states_by_point.values())
        assert len(states_by_point) == 5

    def test_a_stopped_trial_has_no_model_and_is_killed_in_mlflow(
        self, workspace: Workspace
    ) -> None:
        status = {
            run.data.tags["plw.trial_id"]: run.info.status
            for run in workspace.runs()
            if "plw.trial_id" in run.data.tags
        }
        for trial in workspace.trials():
            folder = workspace.sweep / "trials" / trial["id"]
            # On a busy machine a seed may end its training just before its point is stopped.
            is_trained = trial["state"] == "done" or (folder / "train.json").exists()
            assert (folder / "model").exists() == is_trained
            assert not (folder / "checkpoints").exists()
            if trial["attempts"]:
                expected = "FINISHED" if trial["state"] == "done" else "KILLED"
                assert status[trial["id"]] == expected

    def test_held_out_losses_are_measured_during_training(self, workspace: Workspace) -> None:
        trial = next(t for t in workspace.trials() if t["state"] == "done")
        path = workspace.sweep / "trials" / trial["id"] / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        measured = [line["step"] for line in lines if line["heldout_completion_loss"] is not None]
        assert measured == [4, 8, 12]

    def test_warm_workers_train_the_same_bits_as_plw_train(self, workspace: Workspace) -> None:
        trial = [t for t in workspace.trials() if t["state"] == "done"][-1]
        config = workspace.folder / "alone.yaml"
        with config.open("w") as file:
            YAML().dump(trial["settings"], file)
        done = workspace.plw("train", "alone.yaml", "-o", "alone")
        assert done.returncode == 0, done.stderr
        warm = loss_weights_of(workspace.sweep / "trials" / trial["id"])
        assert warm == loss_weights_of(workspace.folder / "alone")
        assert warm

    def test_more_points_run_only_new_trials(self, workspace: Workspace) -> None:
        before = {trial["id"]: trial["ended_at"] for trial in workspace.trials()}
        change(workspace, "search", points=6)
        done = workspace.plw("sweep", "sweep.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        after = {trial["id"]: trial["ended_at"] for trial in workspace.trials()}
        assert len(after) == 12
        assert {trial_id: after[trial_id] for trial_id in before} == before


@pytest.mark.full
def test_plw_stop_ends_one_trial_and_the_others_continue(tmp_path: Path) -> None:
    workspace = make_workspace(
        tmp_path,
        schedule={"steps": 400},
        checkpoint={"every_steps": 1000},
        evals=ONLY_HELDOUT,
        search={"space": {PLW: [0, 0.1]}},
    )
    driver = workspace.start("sweep", "sweep.yaml")
    poll(lambda: any(t["state"] == "training" for t in workspace.trials()), "the first trial")
    first, second = (trial["id"] for trial in workspace.trials())
    metrics = workspace.sweep / "trials" / first / "metrics.jsonl"
    poll(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 20, "step 20")
    stopped = workspace.plw("stop", "runs/sweep", first)
    assert stopped.returncode == 0, stopped.stderr
    output, _ = driver.communicate(timeout=900)
    assert driver.returncode == 130, output
    assert {t["id"]: t["state"] for t in workspace.trials()} == {
        first: "interrupted",
        second: "done",
    }
    last_step = json.loads(metrics.read_text().splitlines()[-1])["step"]
    again = workspace.plw("sweep", "sweep.yaml")
    assert again.returncode == 0, again.stdout + again.stderr
    # The checkpoint is of the step at which the trial was stopped.
    log = (workspace.sweep / "trials" / first / "log.txt").read_text()
    assert f"resumed from step {last_step} of 400" in log
    assert [t["state"] for t in workspace.trials()] == ["done", "done"]


@pytest.mark.full
def test_a_spent_budget_ends_a_sweep_and_a_larger_one_continues_it(tmp_path: Path) -> None:
    workspace = make_workspace(
        tmp_path, evals=ONLY_HELDOUT, search={"budget": {"trials": 1}}, schedule={"steps": 4}
    )
    done = workspace.plw("sweep", "sweep.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "search.budget.trials is spent: 1 of 1; 3 trials did not start" in done.stdout
    assert Counter(t["state"] for t in workspace.trials()) == {"done": 1, "pending": 3}
    change(workspace, "search", budget={"trials": 2})
    assert workspace.plw("sweep", "sweep.yaml").returncode == 0
    assert Counter(t["state"] for t in workspace.trials()) == {"done": 2, "pending": 2}
