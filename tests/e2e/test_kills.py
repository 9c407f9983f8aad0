"""SIGKILL of each process of a sweep: no step is lost or recorded twice."""

import json
import random
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.plw import Workspace, kill_all, make_workspace, poll
from tests.e2e.ray_node import RayNode, ray_node

# Ray's names of the processes to kill. Killing the driver kills all of them.
VICTIMS = {
    "worker": "ray::RayTrainWorker",
    "controller": "ray::TrainController",
    # Tune's name of a trial's driver.
    "trial": "ray::ResourceTrainable",
}
INTERVAL = 10
# Steps taken while a checkpoint is written asynchronously; steps are fast here.
STEPS_DURING_WRITE = 8


@pytest.fixture(scope="module", autouse=True)
def another_cluster() -> Iterator[RayNode]:
    """Run a second cluster, so that code that searches the machine for a cluster finds two."""
    with ray_node(num_cpus=1) as node:
        yield node


def processes_named(driver: subprocess.Popen[str], name: str) -> Iterator[psutil.Process]:
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if name in " ".join(process.cmdline()):
                yield process
        except psutil.NoSuchProcess:
            continue


def steps_by_trial(workspace: Workspace) -> dict[str, int]:
    """Return the number of logged steps of every trial that has begun."""
    found = {}
    for path in (workspace.sweep / "trials").glob("*/metrics.jsonl"):
        lines = path.read_bytes().splitlines(keepends=True)
        found[path.parent.name] = sum(line.endswith(b"\n") for line in lines)
    return found


def trained_at(workspace: Workspace) -> dict[str, float]:
    """Return the time at which each trained trial was trained."""
    paths = (workspace.sweep / "trials").glob("*/train.json")
    return {path.parent.name: path.stat().st_mtime for path in paths}


def resumed_steps(workspace: Workspace, trial_id: str) -> list[int]:
    path = workspace.sweep / "trials" / trial_id / "log.txt"
    text = path.read_text(errors="replace") if path.exists() else ""
    return [int(step) for step in re.findall(r"resumed from step (\d+) of", text)]


def lines_of(workspace: Workspace, trial_id: str) -> list[dict[str, float]]:
    path = workspace.sweep / "trials" / trial_id / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def check_sweep(workspace: Workspace, num_trials: int, num_steps: int) -> None:
    """Assert that every trial is done, and record and MLflow have each step once."""
    assert Counter(t["state"] for t in workspace.trials()) == {"done": num_trials}
    children = [run for run in workspace.runs() if "mlflow.parentRunId" in run.data.tags]
    assert len(children) == num_trials
    for run in children:
        lines = lines_of(workspace, run.data.tags["plw.trial_id"])
        assert [line["step"] for line in lines] == [*range(1, num_steps + 1)]
        points = workspace.metric_points(run.info.run_id, "train/completion_loss")
        expected = [(line["step"], int(line["time"] * 1000)) for line in lines]
        assert sorted((point.step, point.timestamp) for point in points) == expected


def run_with_kills(workspace: Workspace, victims: list[str], seed: int) -> None:
    """Run the sweep to its end and kill `victims`, one after another, at random times."""
    rng = random.Random(seed)
    driver = workspace.start("sweep", "sweep.yaml")
    finished_before: dict[str, float] = {}
    for victim in victims:
        target = sum(steps_by_trial(workspace).values()) + rng.randint(15, 70)
        wait_for_steps(workspace, driver, target)
        before = steps_by_trial(workspace)
        finished_before |= trained_at(workspace)
        resumes = {trial_id: len(resumed_steps(workspace, trial_id)) for trial_id in before}
        if victim == "driver":
            kill_all(driver)
            driver = workspace.start("sweep", "sweep.yaml")
        else:
            next(processes_named(driver, VICTIMS[victim])).kill()
        interrupted = [t for t in before if t not in trained_at(workspace)]
        for trial_id in interrupted:
            check_resume(workspace, driver, trial_id, before[trial_id], resumes[trial_id])
        for trial_id, time in finished_before.items():
            assert trained_at(workspace)[trial_id] == time
    output, _ = driver.communicate(timeout=900)
    assert driver.returncode == 0, output
    for trial_id, time in finished_before.items():
        assert trained_at(workspace)[trial_id] == time


def wait_for_steps(workspace: Workspace, driver: subprocess.Popen[str], num_steps: int) -> None:
    """Wait until all trials together have logged `num_steps` steps."""
    poll(
        lambda: driver.poll() is not None or sum(steps_by_trial(workspace).values()) >= num_steps,
        f"step {num_steps} over all trials",
    )
    assert driver.poll() is None, driver.communicate()[0]


def check_resume(
    workspace: Workspace,
    driver: subprocess.Popen[str],
    trial_id: str,
    steps_before: int,
    num_resumes: int,
) -> None:
    """Assert that the trial resumes at most one interval back, unless it has just ended."""
    poll(
        lambda: (
            driver.poll() is not None
            or len(resumed_steps(workspace, trial_id)) > num_resumes
            or trial_id in trained_at(workspace)
            or steps_before < INTERVAL + STEPS_DURING_WRITE
        ),
        f"trial {trial_id} to resume",
        timeout_s=400,
    )
    resumed = resumed_steps(workspace, trial_id)[num_resumes:]
    if resumed:
        assert steps_before - resumed[0] <= INTERVAL + STEPS_DURING_WRITE


def twelve_trials(folder: Path, steps: int) -> Workspace:
    return make_workspace(
        folder,
        resources={"workers_per_trial": 2, "cpus_per_worker": 1},
        deepspeed={"zero_stage": 2},
        schedule={"steps": steps},
        checkpoint={"every_steps": INTERVAL},
        retries={"crash": 3},
        search={
            "seeds": [0, 1, 2],
            "space": {"loss.prompt_loss_weight": [0, 0.01, 0.242, 1]},
        },
        evals={"heldout_choice": None, "heldout_exact_match": None, "heldout_chrf": None},
    )


def kill_control_store(driver: subprocess.Popen[str]) -> None:
    next(processes_named(driver, "gcs_server")).kill()


def hang_all_processes(driver: subprocess.Popen[str]) -> None:
    """Stop Ray and everything that it has started, as if each had lost its node's disk."""
    for process in psutil.Process(driver.pid).children(recursive=True):
        process.suspend()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("break_ray", "message"),
    [
        (kill_control_store, "Ray's control store (gcs_server) died"),
        (hang_all_processes, "the sweep made no progress (retries.stalled_minutes)"),
    ],
)
def test_a_sweep_starts_ray_again_and_trains_the_same_bits(
    break_ray: Callable[[subprocess.Popen[str]], None], message: str, tmp_path: Path
) -> None:
    only_heldout = {"heldout_choice": None, "heldout_exact_match": None, "heldout_chrf": None}
    workspace = make_workspace(
        tmp_path,
        schedule={"steps": 200},
        checkpoint={"every_steps": INTERVAL},
        search={"space": {"loss.prompt_loss_weight": [0.242]}},
        evals=only_heldout,
        retries={"stalled_minutes": 1},
    )
    driver = workspace.start("sweep", "sweep.yaml")
    wait_for_steps(workspace, driver, 2 * INTERVAL)
    for name in ("ray::ResourceTrainable", "ray::TrainController"):
        [process] = processes_named(driver, name)
        assert not [each.path for each in process.memory_maps() if "libtorch" in each.path], name
    assert not [*processes_named(driver, "ray::PreemptionWatcher")]
    break_ray(driver)
    started = {process.pid for process in psutil.Process(driver.pid).children(recursive=True)}
    output, _ = driver.communicate(timeout=900)
    assert driver.returncode == 0, output
    assert f"{message}; starting it again (1 of 3)" in output
    assert not started & {*psutil.pids()}
    [trial] = workspace.trials()
    assert resumed_steps(workspace, trial["id"])
    (workspace.folder / "alone.yaml").write_text(json.dumps(trial["settings"]))
    assert workspace.plw("train", "alone.yaml", "-o", "alone").returncode == 0
    [model] = (workspace.sweep / "trials" / trial["id"] / "model").glob("*.safetensors")
    assert model.read_bytes() == (workspace.folder / "alone/model" / model.name).read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_sweep_survives_a_kill_of_each_of_its_processes(tmp_path: Path) -> None:
    workspace = twelve_trials(tmp_path, steps=40)
    run_with_kills(workspace, ["worker", "controller", "trial", "driver"], seed=0)
    check_sweep(workspace, num_trials=12, num_steps=40)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_sweep_survives_ten_kills_at_random_times(tmp_path: Path) -> None:
    workspace = twelve_trials(tmp_path, steps=80)
    order = random.Random(1)
    victims = [order.choice(["driver", *VICTIMS]) for _ in range(10)]
    run_with_kills(workspace, victims, seed=1)
    check_sweep(workspace, num_trials=12, num_steps=80)
