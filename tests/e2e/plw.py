"""Run `plw` as a process, and read its files and its MLflow runs."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import psutil
from ruamel.yaml import YAML

from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import write_data

PAUSE = threading.Event()
# The killer of killer.py recognises its victims by this variable, which they inherit.
MARK = "PLW_TEST_FOLDER"
# Differences from the demo: four weights with one seed, and every kind of held-out measure.
SECTIONS: dict[str, dict[str, Any]] = {
    "data": {"path": "mine.jsonl", "heldout_examples": 64},
    "search": {"space": {"loss.prompt_loss_weight": [0, 0.01, 0.242, 1]}, "seeds": None},
    "evals": {
        "heldout": {"examples": 64},
        "heldout_choice": {"examples": 48, "choices": 4},
        "heldout_exact_match": {"examples": 48, "max_new_tokens": 16},
        "heldout_chrf": {"examples": 12, "max_new_tokens": 48, "invert": True},
    },
    "resources": {"cpus_per_worker": 2},
}
DEMO_SPEC = Path(__file__).parents[2] / "examples" / "demo.yaml"


@dataclass
class Workspace:
    """A folder with a tiny model, 200 Alpaca records and a spec derived from the demo's."""

    folder: Path

    @property
    def sweep(self) -> Path:
        return self.folder / "runs" / "sweep"

    def plw(self, *arguments: str, timeout_s: float = 900) -> subprocess.CompletedProcess[str]:
        """Run `plw` and wait for its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `plw` in a new process group."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, MARK: str(self.folder)},
        )

    def command(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).with_name("plw")), *arguments]

    def trials(self) -> list[dict[str, Any]]:
        """Return the trial records in the order of the plan."""
        if not (self.sweep / "sweep.json").exists():
            return []
        ids = json.loads((self.sweep / "sweep.json").read_text())["trial_ids"]
        paths = [self.sweep / "trials" / trial_id / "trial.json" for trial_id in ids]
        return [json.loads(path.read_text()) for path in paths]

    def runs(self) -> list[Any]:
        """Return all MLflow runs of the sweep's experiment, including the parent."""
        client = mlflow.MlflowClient(f"sqlite:///{self.folder / 'runs' / 'mlflow.db'}")
        [experiment] = [e for e in client.search_experiments() if e.name != "Default"]
        return list(client.search_runs([experiment.experiment_id]))

    def metric_points(self, run_id: str, name: str) -> list[Any]:
        """Return MLflow's points of one metric of a run."""
        client = mlflow.MlflowClient(f"sqlite:///{self.folder / 'runs' / 'mlflow.db'}")
        return list(client.get_metric_history(run_id, name))

    def metric_steps(self, run_id: str, name: str) -> list[int]:
        return [point.step for point in self.metric_points(run_id, name)]


def make_workspace(folder: Path, **sections: dict[str, Any]) -> Workspace:
    """Write the demo's spec with a tiny model and the settings of SECTIONS and `sections`."""
    save_tiny_model(folder / "model")
    write_data(folder / "mine.jsonl", 200)
    workspace = Workspace(folder)
    (folder / "sweep.yaml").write_text(DEMO_SPEC.read_text())
    edit_spec(workspace, model={"path": "./model"}, **SECTIONS)
    edit_spec(workspace, **sections)
    return workspace


def edit_spec(workspace: Workspace, **sections: dict[str, Any]) -> None:
    """Update sections of a workspace's spec."""
    yaml, path = YAML(), workspace.folder / "sweep.yaml"
    spec = yaml.load(path.read_text())
    for name, section in sections.items():
        spec.setdefault(name, {}).update(section)
    with path.open("w") as file:
        yaml.dump(spec, file)


def poll(condition: Callable[[], bool], what: str, timeout_s: float = 600) -> None:
    """Return as soon as `condition` holds.

    Raises:
        AssertionError: it does not hold within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        # Polling without a pause would use a core that the other process needs.
        PAUSE.wait(0.1)


def rank_processes(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the training Ray processes below `driver`."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def kill_all(driver: subprocess.Popen[str]) -> None:
    """SIGKILL the driver and all processes that it started, like a power cut."""
    processes = psutil.Process(driver.pid).children(recursive=True)
    os.killpg(driver.pid, signal.SIGKILL)
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    driver.communicate()
