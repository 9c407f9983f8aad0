"""Ray on this machine starts under the long temporary folders of batch systems."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.trials.ray_address import short_temp_dir


def test_a_short_temporary_folder_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", "/tmp/" + "a" * 36)
    assert short_temp_dir() is None


def test_a_long_temporary_folder_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/tmp/" + "a" * 37)
    assert short_temp_dir() == "/tmp"


@pytest.mark.slow
def test_ray_starts_under_a_long_temporary_folder(tmp_path: Path) -> None:
    folder = tmp_path / ("slurm" * 20)
    folder.mkdir()
    script = (
        "from orchestrator.trials.ray_cluster import ray_cluster\n"
        "with ray_cluster(None, 1) as cluster: print(len(cluster.nodes), 'node')"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert "1 node" in found.stdout, found.stderr
