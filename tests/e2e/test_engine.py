"""The sweep engine beyond grids: searches that learn, trials that are given up or stopped."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.e2e.plw import Workplace, make_workplace, poll
from trainers.foundation.files import sha256_of

pytestmark = pytest.mark.slow

PLW = "loss.prompt_loss_weight"
ONLY_HELDOUT = {"multiple_choice": None, "short_generation": None, "long_generation": None}


def weights_of(folder: Path) -> dict[str, str]:
    """Digests of a model's weights by file name."""
    return {path.name: sha256_of(path) for path in (folder / "model").glob("*.safetensors")}


def change(workplace: Workplace, section: str, **values: Any) -> None:
    yaml = YAML()
    path = workplace.folder / "sweep.yaml"
    spec = yaml.load(path.read_text())
    spec.setdefault(section, {}).update(values)
    with path.open("w") as file:
        yaml.dump(spec, file)


class TestBayesianSearch:
    """TPE over the weight, two seeds a point, with early stopping."""

    @pytest.fixture(scope="class")
    def workplace(self, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
        workplace = make_workplace(
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
        done = workplace.plw("sweep", "sweep.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        return workplace

    def test_ten_trials_end_done_or_given_up(self, workplace: Workplace) -> None:
        trials = workplace.trials()
        assert len(trials) == 10
        assert {t["state"] for t in trials} <= {"done", "stopped"}
        assert [t["searched"][PLW] for t in trials[:4]] == [0, 0, 1, 1]

    def test_the_seeds_of_a_point_share_their_fate(self, workplace: Workplace) -> None:
        fates: dict[float, set[str]] = {}
        for trial in workplace.trials():
            fates.setdefault(trial["searched"][PLW], set()).add(trial["state"])
        # A seed that ended before the point was given up keeps its scores.
        assert all(fate != {"stopped", "training"} for fate in fates.values())
        assert len(fates) == 5

    def test_a_trial_that_was_given_up_has_no_model_and_is_killed_in_mlflow(
        self, workplace: Workplace
    ) -> None:
        status = {
            run.data.tags["plw.trial_id"]: run.info.status
            for run in workplace.runs()
            if "plw.trial_id" in run.data.tags
        }
        for trial in workplace.trials():
            folder = workplace.sweep / "trials" / trial["id"]
            # On a busy machine a seed may end its training just before its point is given up.
            is_trained = trial["state"] == "done" or (folder / "train.json").exists()
            assert (folder / "model").exists() == is_trained
            assert not (folder / "checkpoints").exists()
            if trial["attempts"]:
                expected = "FINISHED" if trial["state"] == "done" else "KILLED"
                assert status[trial["id"]] == expected

    def test_held_out_losses_were_measured_while_it_trained(self, workplace: Workplace) -> None:
        trial = next(t for t in workplace.trials() if t["state"] == "done")
        path = workplace.sweep / "trials" / trial["id"] / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        measured = [line["step"] for line in lines if line["heldout_completion_loss"] is not None]
        assert measured == [4, 8, 12]

    def test_a_trial_on_warm_workers_is_bitwise_the_one_alone(self, workplace: Workplace) -> None:
        trial = [t for t in workplace.trials() if t["state"] == "done"][-1]
        config = workplace.folder / "alone.yaml"
        with config.open("w") as file:
            YAML().dump(trial["settings"], file)
        done = workplace.plw("train", "alone.yaml", "-o", "alone")
        assert done.returncode == 0, done.stderr
        warm = weights_of(workplace.sweep / "trials" / trial["id"])
        assert warm == weights_of(workplace.folder / "alone")
        assert warm

    def test_more_points_run_only_what_is_new(self, workplace: Workplace) -> None:
        before = {trial["id"]: trial["ended_at"] for trial in workplace.trials()}
        change(workplace, "search", points=6)
        done = workplace.plw("sweep", "sweep.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        after = {trial["id"]: trial["ended_at"] for trial in workplace.trials()}
        assert len(after) == 12
        assert {trial_id: after[trial_id] for trial_id in before} == before


@pytest.mark.full
def test_one_trial_is_stopped_and_the_others_go_on(tmp_path: Path) -> None:
    workplace = make_workplace(
        tmp_path,
        schedule={"steps": 400},
        checkpoint={"every_steps": 1000},
        evals=ONLY_HELDOUT,
        search={"space": {PLW: [0, 0.1]}},
    )
    driver = workplace.start("sweep", "sweep.yaml")
    poll(lambda: any(t["state"] == "training" for t in workplace.trials()), "the first trial")
    first, second = (trial["id"] for trial in workplace.trials())
    metrics = workplace.sweep / "trials" / first / "metrics.jsonl"
    poll(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 20, "step 20")
    stopped = workplace.plw("stop", "runs/sweep", first)
    assert stopped.returncode == 0, stopped.stderr
    output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 1, output
    assert {t["id"]: t["state"] for t in workplace.trials()} == {
        first: "interrupted",
        second: "done",
    }
    last_step = json.loads(metrics.read_text().splitlines()[-1])["step"]
    again = workplace.plw("sweep", "sweep.yaml")
    assert again.returncode == 0, again.stdout + again.stderr
    # The checkpoint was written at the very step at which it was stopped: nothing is lost.
    log = (workplace.sweep / "trials" / first / "log.txt").read_text()
    assert f"resumed from step {last_step} of 400" in log
    assert [t["state"] for t in workplace.trials()] == ["done", "done"]


@pytest.mark.full
def test_a_spent_budget_ends_a_sweep_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    workplace = make_workplace(
        tmp_path, evals=ONLY_HELDOUT, search={"budget": {"trials": 1}}, schedule={"steps": 4}
    )
    done = workplace.plw("sweep", "sweep.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "search.budget.trials is spent: 1 of 1; 3 trials did not start" in done.stdout
    assert Counter(t["state"] for t in workplace.trials()) == {"done": 1, "pending": 3}
    change(workplace, "search", budget={"trials": 2})
    assert workplace.plw("sweep", "sweep.yaml").returncode == 0
    assert Counter(t["state"] for t in workplace.trials()) == {"done": 2, "pending": 2}
