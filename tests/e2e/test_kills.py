"""Kill -9 of everything that a sweep consists of: nothing is lost, nothing is done twice."""

import json
import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.plw import Workplace, kill_all, make_workplace, poll
from tests.e2e.ray_node import RayNode, ray_node

# What to kill, by what Ray calls the process; the driver takes all of them with it.
VICTIMS = {"worker": "RayTrainWorker", "controller": "TrainController", "trial": "TrialDriver"}
INTERVAL = 10
# A checkpoint is written behind the next steps, which are fast here.
STEPS_OF_A_WRITE = 8


@pytest.fixture(scope="module", autouse=True)
def another_cluster() -> Iterator[RayNode]:
    """What looks for a cluster on this machine finds two."""
    with ray_node(num_cpus=1) as node:
        yield node


def processes_named(driver: subprocess.Popen[str], name: str) -> Iterator[psutil.Process]:
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if f"ray::{name}" in " ".join(process.cmdline()):
                yield process
        except psutil.NoSuchProcess:
            continue


def steps_by_trial(workplace: Workplace) -> dict[str, int]:
    """Logged steps of every trial that has begun."""
    found = {}
    for path in (workplace.sweep / "trials").glob("*/metrics.jsonl"):
        lines = path.read_bytes().splitlines(keepends=True)
        found[path.parent.name] = sum(line.endswith(b"\n") for line in lines)
    return found


def trained_at(workplace: Workplace) -> dict[str, float]:
    """When each trial that is trained was."""
    paths = (workplace.sweep / "trials").glob("*/train.json")
    return {path.parent.name: path.stat().st_mtime for path in paths}


def resumed_steps(workplace: Workplace, trial_id: str) -> list[int]:
    path = workplace.sweep / "trials" / trial_id / "log.txt"
    text = path.read_text(errors="replace") if path.exists() else ""
    return [int(step) for step in re.findall(r"resumed from step (\d+) of", text)]


def lines_of(workplace: Workplace, trial_id: str) -> list[dict[str, float]]:
    path = workplace.sweep / "trials" / trial_id / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def check_sweep(workplace: Workplace, num_trials: int, num_steps: int) -> None:
    """Every trial is done, and each step stands once in the record and once in MLflow."""
    assert Counter(t["state"] for t in workplace.trials()) == {"done": num_trials}
    children = [run for run in workplace.runs() if "mlflow.parentRunId" in run.data.tags]
    assert len(children) == num_trials
    for run in children:
        lines = lines_of(workplace, run.data.tags["plw.trial_id"])
        assert [line["step"] for line in lines] == [*range(1, num_steps + 1)]
        points = workplace.metric_points(run.info.run_id, "completion_loss")
        expected = [(line["step"], int(line["time"] * 1000)) for line in lines]
        assert sorted((point.step, point.timestamp) for point in points) == expected


def disturb(workplace: Workplace, victims: list[str], seed: int) -> None:
    """Run the sweep to its end while one of `victims` after another is killed at random moments."""
    moments = random.Random(seed)
    driver = workplace.start("sweep", "sweep.yaml")
    finished_before: dict[str, float] = {}
    for victim in victims:
        target = sum(steps_by_trial(workplace).values()) + moments.randint(15, 70)
        reach(workplace, driver, target)
        before = steps_by_trial(workplace)
        finished_before |= trained_at(workplace)
        resumes = {trial_id: len(resumed_steps(workplace, trial_id)) for trial_id in before}
        if victim == "driver":
            kill_all(driver)
            driver = workplace.start("sweep", "sweep.yaml")
        else:
            for process in list(processes_named(driver, VICTIMS[victim]))[:1]:
                process.kill()
        cut = [t for t in before if t not in trained_at(workplace)]
        for trial_id in cut:
            check_resume(workplace, driver, trial_id, before[trial_id], resumes[trial_id])
        for trial_id, time in finished_before.items():
            assert trained_at(workplace)[trial_id] == time
    output, _ = driver.communicate(timeout=900)
    assert driver.returncode == 0, output
    for trial_id, time in finished_before.items():
        assert trained_at(workplace)[trial_id] == time


def reach(workplace: Workplace, driver: subprocess.Popen[str], num_steps: int) -> None:
    """Wait until all trials together have logged so many steps, while the sweep runs."""
    poll(
        lambda: driver.poll() is not None or sum(steps_by_trial(workplace).values()) >= num_steps,
        f"step {num_steps} over all trials",
    )
    assert driver.poll() is None, driver.communicate()[0]


def check_resume(
    workplace: Workplace,
    driver: subprocess.Popen[str],
    trial_id: str,
    steps_before: int,
    num_resumes: int,
) -> None:
    """The trial goes on from a checkpoint at most one interval back; it may just have ended."""
    poll(
        lambda: (
            driver.poll() is not None
            or len(resumed_steps(workplace, trial_id)) > num_resumes
            or trial_id in trained_at(workplace)
            or steps_before < INTERVAL + STEPS_OF_A_WRITE
        ),
        f"trial {trial_id} to go on",
        timeout_s=400,
    )
    resumed = resumed_steps(workplace, trial_id)[num_resumes:]
    if resumed:
        assert steps_before - resumed[0] <= INTERVAL + STEPS_OF_A_WRITE


def twelve_trials(folder: Path, steps: int) -> Workplace:
    return make_workplace(
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
        evals={"multiple_choice": None, "short_generation": None, "long_generation": None},
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_sweep_survives_the_death_of_each_of_its_parts(tmp_path: Path) -> None:
    workplace = twelve_trials(tmp_path, steps=40)
    disturb(workplace, ["worker", "controller", "trial", "driver"], seed=0)
    check_sweep(workplace, num_trials=12, num_steps=40)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_sweep_survives_ten_deaths_at_random_moments(tmp_path: Path) -> None:
    workplace = twelve_trials(tmp_path, steps=80)
    order = random.Random(1)
    victims = [order.choice(["driver", *VICTIMS]) for _ in range(10)]
    disturb(workplace, victims, seed=1)
    check_sweep(workplace, num_trials=12, num_steps=80)
