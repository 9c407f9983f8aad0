"""Tune reuses the drivers, and with them the warm ranks, for later trials."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import write_data

NUM_TRIALS = 20

# Tune does not report how many actors it has started.
COUNTED = f"""
from pathlib import Path
from ray.air.execution._internal.actor_manager import RayActorManager
from benchmarks.noop import main

asked, add = [], RayActorManager.add_actor
RayActorManager.add_actor = lambda *args, **kwargs: (asked.append(1), add(*args, **kwargs))[1]
main(Path("result.json"), {NUM_TRIALS}, num_slots=2)
Path("asked.txt").write_text(str(len(asked)))
"""


@pytest.mark.slow
def test_two_slots_run_twenty_short_trials_with_two_actors(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model")
    write_data(tmp_path / "data.jsonl", 40)
    done = subprocess.run(
        [sys.executable, "-c", COUNTED],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked.txt").read_text() == "2"
    pids = (tmp_path / "runs/noop/drivers.txt").read_text().split()
    assert len(set(pids)) == 2
