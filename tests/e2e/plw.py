"""The command line as a person uses it: a process, its files, and what MLflow got of it."""

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
DEMO_SPEC = Path(__file__).parents[2] / "examples" / "demo.yaml"


@dataclass
class Workplace:
    """A folder with a tiny model, 200 lines of Alpaca data and a spec made from the demo's."""

    folder: Path

    @property
    def sweep(self) -> Path:
        return self.folder / "runs" / "sweep"

    def plw(self, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run `plw` to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `plw` in a process group of its own."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def command(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).with_name("plw")), *arguments]

    def trials(self) -> list[dict[str, Any]]:
        """The trial records in the order of the plan."""
        if not (self.sweep / "sweep.json").exists():
            return []
        ids = json.loads((self.sweep / "sweep.json").read_text())["trial_ids"]
        paths = [self.sweep / "trials" / trial_id / "trial.json" for trial_id in ids]
        return [json.loads(path.read_text()) for path in paths]

    def runs(self) -> list[Any]:
        """All MLflow runs of the sweep's experiment, the parent among them."""
        client = mlflow.MlflowClient(f"sqlite:///{self.folder / 'runs' / 'mlflow.db'}")
        [experiment] = [e for e in client.search_experiments() if e.name != "Default"]
        return list(client.search_runs([experiment.experiment_id]))

    def metric_points(self, run_id: str, name: str) -> list[Any]:
        """MLflow's points of one metric of a run."""
        client = mlflow.MlflowClient(f"sqlite:///{self.folder / 'runs' / 'mlflow.db'}")
        return list(client.get_metric_history(run_id, name))

    def metric_steps(self, run_id: str, name: str) -> list[int]:
        return [point.step for point in self.metric_points(run_id, name)]


def make_workplace(folder: Path, **sections: dict[str, Any]) -> Workplace:
    """The demo's spec with model and data of one's own, and further settings changed."""
    save_tiny_model(folder / "model")
    write_data(folder / "mine.jsonl", 200)
    yaml = YAML()
    spec = yaml.load(DEMO_SPEC.read_text())
    spec["model"]["path"] = "./model"
    spec["data"]["path"] = "mine.jsonl"
    for name, section in sections.items():
        spec.setdefault(name, {}).update(section)
    with (folder / "sweep.yaml").open("w") as file:
        yaml.dump(spec, file)
    return Workplace(folder)


def poll(condition: Callable[[], bool], what: str, timeout_s: float = 180) -> None:
    """Return as soon as `condition` holds.

    Raises:
        AssertionError: it did not within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        # A poll without a pause would take a core from what it waits for.
        PAUSE.wait(0.1)


def rank_processes(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """The Ray processes under `driver` that train."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def kill_all(driver: subprocess.Popen[str]) -> None:
    """SIGKILL the driver and everything it started, as a power cut would."""
    processes = psutil.Process(driver.pid).children(recursive=True)
    os.killpg(driver.pid, signal.SIGKILL)
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    driver.communicate()
