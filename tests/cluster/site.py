"""The on-premise cluster of docs/clusters.md: a head, two workers, and a laptop outside."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.hosts import ROOT, Host, Site, site_in, wait_until
from tests.object_stores import ACCOUNT

ON_PREMISE = ROOT / "examples" / "clusters" / "on-premise.yaml"
RUNS = "/mnt/sweeps"
MLFLOW = "http://127.0.0.1:5000"
_POINTS = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
runs = client.search_runs([client.get_experiment_by_name(sys.argv[2]).experiment_id])
print(json.dumps({
    run.data.tags["plw.trial_id"]: [
        [p.step, p.timestamp, p.value]
        for p in client.get_metric_history(run.info.run_id, "train/completion_loss")
    ]
    for run in runs if "plw.trial_id" in run.data.tags
}))
"""
_MAKE_BUCKET = "import boto3; boto3.client('s3').create_bucket(Bucket='sweeps')"
_LIST_BUCKET = """
import boto3, json
pages = boto3.client('s3').get_paginator('list_objects_v2').paginate(Bucket='sweeps')
print(json.dumps([one['Key'] for page in pages for one in page.get('Contents', [])]))
"""


class OnPremise:
    """The hosts of examples/clusters/on-premise.yaml, and a user's commands on them."""

    def __init__(self, site: Site) -> None:
        self.site = site
        # Compiled once here instead of on each host; it must match this environment.
        subprocess.run([sys.executable, "-m", "trainers.engine.compile_ops"], cwd=ROOT, check=True)
        self.head, *self.workers = (site.add(name) for name in ("head", "worker-1", "worker-2"))
        for host in (self.head, *self.workers):
            install_compiled_operation(host)
        self.store = site.add("store", has_storage=False)
        self._start_store()
        self.laptop = site.add(
            "laptop", subnet="outside", has_storage=False, has_firewall=False, has_checkout=True
        )
        self.laptop.environment["PYTHONPATH"] = str(ROOT)
        key = self.laptop.home / ".ssh" / "id_ed25519"
        shutil.copy(site.key, key)
        key.chmod(0o600)
        self.work = self.laptop.home / "work"
        self.work.mkdir()

    def _start_store(self) -> None:
        """Start an object store in the subnet and set its address in every host's shells."""
        account = {**ACCOUNT, "AWS_ENDPOINT_URL": f"http://{self.store.address}:9000"}
        exports = "".join(f"export {key}={value}\n" for key, value in account.items())
        for host in (self.head, *self.workers):
            (host.home / ".bashrc").write_text(exports)
        # Its log of each request is discarded.
        serve = f"exec {sys.executable} -m moto.server -H 0.0.0.0 -p 9000 > /dev/null 2>&1"
        self.store.start_command("sh", "-c", serve)
        self.store.environment |= account
        wait_until(lambda: self._on_store(_MAKE_BUCKET).returncode == 0, "the object store", 120)

    def _on_store(self, code: str) -> Any:
        return self.store.run(sys.executable, "-c", code)

    def stored(self) -> list[str]:
        """Return the names of all objects in the store."""
        return list(json.loads(self._on_store(_LIST_BUCKET).stdout))

    def ray(self, *arguments: str) -> str:
        """Run `ray ARGUMENTS` in the laptop's checkout and return its output; it must succeed."""
        command = f'cd {ROOT} && exec ray "$@"'
        done = self.laptop.run("sh", "-c", command, "ray", *arguments, timeout_s=600)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    def up(self) -> None:
        """Bring the cluster up and wait for its workers."""
        self.ray("get-auth-token", "--generate")
        self.ray("up", "--yes", "--no-config-cache", str(ON_PREMISE))
        wait_until(lambda: self.num_alive() == 3, "three hosts in the cluster", 300)

    def num_alive(self) -> int:
        """Return the number of hosts that Ray's head counts as alive."""
        listed = self.head.run(
            *("env", "RAY_AUTH_MODE=token", "ray", "list", "nodes", "--format", "json"),
            *("--filter", "state=ALIVE"),
        )
        return len(json.loads(listed.stdout)) if listed.returncode == 0 else 0

    def plw(self, *arguments: str, timeout_s: float = 900) -> Any:
        """Run `plw ARGUMENTS` on the laptop, in the folder of the spec."""
        return self.laptop.run(*self._plw(arguments), timeout_s=timeout_s)

    def start(self, *arguments: str) -> Any:
        """Start `plw ARGUMENTS` on the laptop."""
        return self.laptop.start_command(*self._plw(arguments))

    def _plw(self, arguments: tuple[str, ...]) -> list[str]:
        return ["sh", "-c", 'cd ~/work && exec plw "$@"', "plw", *arguments]

    def folder(self, sweep: str) -> Path:
        """Return the local path of a sweep's folder on the storage."""
        return self.site.storage / sweep

    def trials(self, sweep: str) -> list[dict[str, Any]]:
        """Return the trial records of a sweep in the order of its plan."""
        path = self.folder(sweep) / "sweep.json"
        if not path.exists():
            return []
        ids = json.loads(path.read_text())["trial_ids"]
        files = [self.folder(sweep) / "trials" / one / "trial.json" for one in ids]
        return [json.loads(file.read_text()) for file in files if file.exists()]

    def steps(self, sweep: str, index: int) -> list[dict[str, Any]]:
        """Return the logged steps of a sweep's trial."""
        trials = self.trials(sweep)
        if len(trials) <= index:
            return []
        path = self.folder(sweep) / "trials" / trials[index]["id"] / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def scores(self, sweep: str) -> list[dict[str, float]]:
        """Return the scores of each trial by name."""
        return scores_in(self.folder(sweep), [trial["id"] for trial in self.trials(sweep)])

    def mlflow_points(self, sweep: str) -> dict[str, list[list[float]]]:
        """Return (step, time, value) of the completion losses in the head's MLflow, by trial."""
        done = self.head.run(sys.executable, "-c", _POINTS, MLFLOW, sweep)
        assert done.returncode == 0, done.stderr
        points: dict[str, list[list[float]]] = json.loads(done.stdout)
        return points


def scores_in(folder: Path, trial_ids: list[str]) -> list[dict[str, float]]:
    """Return the scores of the given trials of the sweep in `folder`, by name."""
    cards = [json.loads((folder / "trials" / one / "scores.json").read_text()) for one in trial_ids]
    return [{score["name"]: score["value"] for score in card["scores"]} for card in cards]


def install_compiled_operation(host: Host) -> None:
    """Copy the operation that DeepSpeed would compile at first use (a minute)."""
    compiled = Path.home() / ".cache" / "torch_extensions"
    if compiled.is_dir():
        shutil.copytree(compiled, host.home / ".cache" / "torch_extensions")


@contextmanager
def on_premise_in(folder: Path) -> Iterator[OnPremise]:
    """Start the hosts, without Ray."""
    with site_in(folder) as site:
        yield OnPremise(site)
