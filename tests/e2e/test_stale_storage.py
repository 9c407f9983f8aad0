"""A sweep on storage where each process keeps taking a file for missing once it was missing."""

import subprocess
from pathlib import Path

import pytest

from tests.e2e.plw import make_workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SOURCE = Path(__file__).with_name("negative_cache.c")


def test_a_sweep_is_complete_although_written_files_stay_missing_for_30_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "negative_cache.so"
    command = ["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    workspace = make_workspace(
        tmp_path,
        schedule={"steps": 4},
        search={"space": {"loss.prompt_loss_weight": [0, 0.1]}},
        evals={"heldout_chrf": None},
        resources={"cpus_per_worker": 1, "max_concurrent_trials": 1, "scorers": 1},
    )
    # Ray's sockets and logs are elsewhere; Tune's and Train's own files are local to the head.
    monkeypatch.setenv("NEGATIVE_CACHE_UNDER", f"{workspace.sweep}/trials")
    monkeypatch.setenv("NEGATIVE_CACHE_S", "30")
    monkeypatch.setenv("LD_PRELOAD", str(library))
    done = workspace.plw("sweep", "sweep.yaml")
    monkeypatch.delenv("LD_PRELOAD")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [trial["state"] for trial in workspace.trials()] == ["done", "done"]
    assert [trial["attempts"] for trial in workspace.trials()] == [1, 1]
    children = [run for run in workspace.runs() if "mlflow.parentRunId" in run.data.tags]
    for run in children:
        assert workspace.metric_steps(run.info.run_id, "train/loss") == [1, 2, 3, 4]
        assert "eval/heldout.choice" in run.data.metrics
