"""SIGKILL of processes of a sweep, chosen at random: its results equal those of a quiet sweep."""

import json
import random
import shlex
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.killer import Killer, wait_random
from tests.e2e.plw import Workspace, make_workspace, poll

pytestmark = [pytest.mark.full, pytest.mark.timeout(3600)]
NUM_KILLS = 10
LONGEST_WAIT_S = 25


def six_trials(folder: Path) -> Workspace:
    folder.mkdir()
    return make_workspace(
        folder,
        resources={"workers_per_trial": 2, "cpus_per_worker": 1},
        deepspeed={"zero_stage": 2},
        schedule={"steps": 300},
        checkpoint={"every_steps": 10},
        search={"seeds": [0, 1], "space": {"loss.prompt_loss_weight": [0, 0.1, 1]}},
        evals={"heldout_choice": None, "heldout_chrf": None},
    )


def scores(workspace: Workspace, trial_id: str) -> list[dict[str, Any]]:
    path = workspace.sweep / "trials" / trial_id / "scores.json"
    found: list[dict[str, Any]] = json.loads(path.read_text())["scores"]
    return found


def assert_same_results(workspace: Workspace, quiet: Workspace) -> None:
    """Assert that all models are equal in all bytes, and that all scores are equal."""
    assert Counter(trial["state"] for trial in workspace.trials()) == {"done": 6}
    ids = [trial["id"] for trial in workspace.trials()]
    assert ids == [trial["id"] for trial in quiet.trials()]
    for trial_id in ids:
        models = [each.sweep / "trials" / trial_id / "model" for each in (workspace, quiet)]
        ours, theirs = (sorted(model.glob("*.safetensors")) for model in models)
        assert [path.name for path in ours] == [path.name for path in theirs]
        assert ours
        assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]
        assert scores(workspace, trial_id) == scores(quiet, trial_id)


def assert_each_step_once(workspace: Workspace) -> None:
    """Assert that MLflow has one value for each metric and step that the sweep logged."""
    trials = [run for run in workspace.runs() if "mlflow.parentRunId" in run.data.tags]
    assert len(trials) == 6
    for run in trials:
        for name in run.data.metrics:
            # System metrics are samples of time; a restart numbers them from 0 again.
            if not name.startswith("system/"):
                steps = workspace.metric_steps(run.info.run_id, name)
                assert len(steps) == len({*steps}), name
        assert workspace.metric_steps(run.info.run_id, "train/loss") == [*range(1, 301)]


def next_command(output: str) -> list[str]:
    """Return the command at the end of the last line that the terminal shows."""
    last = output.strip().splitlines()[-1]
    assert "plw sweep" in last, output
    return shlex.split("sweep" + last.split("plw sweep")[1].split(";")[0])


def is_over(driver: subprocess.Popen[str]) -> bool:
    return driver.poll() is not None


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Run the sweep without a kill."""
    workspace = six_trials(tmp_path_factory.mktemp("random_kills") / "quiet")
    assert workspace.plw("sweep", "sweep.yaml").returncode == 0
    return workspace


@pytest.mark.parametrize("seed", [0, 1])
def test_ten_random_kills_change_nothing(seed: int, quiet: Workspace, tmp_path: Path) -> None:
    workspace = six_trials(tmp_path / "killed")
    killer = Killer(str(workspace.folder), random.Random(seed))
    driver, outputs = workspace.start("sweep", "sweep.yaml"), []
    for _ in range(NUM_KILLS):
        wait_random(killer.choose, LONGEST_WAIT_S)
        if not is_over(driver):
            victim = killer.kill_one()
            print(f"killed {victim}")
            if victim.pid != driver.pid:
                continue
            poll(lambda: not killer.victims(), "all processes to end", timeout_s=30)
            driver.communicate()
            command = ["sweep", "sweep.yaml"]
            # It may have been killed before it had recorded anything.
            if (workspace.sweep / "sweep.json").exists():
                shown = workspace.plw("status")
                print(shown.stdout)
                command = next_command(shown.stdout)
        else:
            # The sweep gave up, which its last line says, together with how to continue.
            output, _ = driver.communicate()
            outputs.append(output)
            assert driver.returncode != 0, "the sweep ended before the last kill"
            command = next_command(output)
        driver = workspace.start(*command)
    output, _ = driver.communicate(timeout=1800)
    print("".join([*outputs, output]))
    while driver.returncode != 0:
        driver = workspace.start(*next_command(output))
        output, _ = driver.communicate(timeout=1800)
        print(output)
    assert not killer.victims()
    assert_same_results(workspace, quiet)
    assert_each_step_once(workspace)
