"""`plw sweep` with an object store: a lost folder, and a store that fails for one trial."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.spec.sweep_spec import load_spec
from orchestrator.trials.sweep_checks import check_sweep
from tests.e2e.plw import Workspace, edit_spec, make_workspace
from tests.object_stores import BUCKET, S3Server, s3_server

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


def workspace_in(folder: Path) -> Workspace:
    workspace = make_workspace(
        folder,
        schedule={"steps": 6},
        checkpoint={"every_steps": 2},
        retries={"crash": 0},
        search={"space": {"loss.prompt_loss_weight": [0, 0.1]}},
        evals={"heldout_choice": None, "heldout_exact_match": None, "heldout_chrf": None},
    )
    with (folder / "sweep.yaml").open("a") as file:
        file.write(f"storage: s3://{BUCKET}/runs\n")
    return workspace


def scores_of(workspace: Workspace) -> dict[str, str]:
    """Return the contents of the score files of all trials and of the untuned model."""
    return {path.parent.name: path.read_text() for path in workspace.sweep.glob("*/*/scores.json")}


def test_a_lost_folder_is_restored_and_no_trial_runs_twice(
    server: S3Server, tmp_path: Path
) -> None:
    workspace = workspace_in(tmp_path)
    done = workspace.plw("sweep", "sweep.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    before = workspace.trials()
    scores = {
        path.parent.name: path.read_text() for path in workspace.sweep.glob("*/*/scores.json")
    }
    assert len(scores) == 3
    shutil.rmtree(tmp_path / "runs")
    again = workspace.plw("sweep", "sweep.yaml")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 trials were done before and were skipped." in again.stdout
    assert workspace.trials() == before
    assert scores_of(workspace) == scores
    steps = [workspace.metric_steps(run.info.run_id, "train/loss") for run in workspace.runs()]
    assert sorted(steps) == [[], [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]]


def test_a_store_failure_fails_only_the_affected_trial(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = workspace_in(tmp_path)
    edit_spec(workspace, retries={"crash": 0})
    monkeypatch.chdir(tmp_path)
    first = check_sweep(load_spec(Path("sweep.yaml")), address=None).plan.trials[0].id
    server.fault = lambda method, path: (
        "busy" if method in ("PUT", "POST") and f"/{first}/checkpoints/" in path else None
    )
    done = workspace.plw("sweep", "sweep.yaml")
    assert done.returncode == 3, done.stdout + done.stderr
    failed, other = workspace.trials()
    assert (failed["id"], failed["state"], other["state"]) == (first, "failed", "done")
    assert "the checkpoint of step 2 could not be written" in failed["error"]
    assert "did not accept checkpoints/step-00000002/" in failed["error"]
    server.fault = lambda method, path: None
    again = workspace.plw("sweep", "sweep.yaml")
    assert again.returncode == 0, again.stdout + again.stderr
    assert [one["state"] for one in workspace.trials()] == ["done", "done"]
