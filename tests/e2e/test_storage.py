"""`plw sweep` with an object store: a lost folder, and a store that fails one trial."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.spec.sweep_spec import load_spec
from orchestrator.trials.sweep import check
from tests.e2e.plw import Workplace, make_workplace
from tests.object_stores import BUCKET, S3Server, s3_server

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


def workplace_in(folder: Path) -> Workplace:
    workplace = make_workplace(
        folder,
        schedule={"steps": 6},
        checkpoint={"every_steps": 2},
        retries={"crash": 0},
        search={"space": {"loss.prompt_loss_weight": [0, 0.1]}},
        evals={"multiple_choice": None, "short_generation": None, "long_generation": None},
    )
    with (folder / "sweep.yaml").open("a") as file:
        file.write(f"storage: s3://{BUCKET}/runs\n")
    return workplace


def scores_of(workplace: Workplace) -> dict[str, str]:
    """The scores of all trials and of the untuned model, as they are in their files."""
    return {path.parent.name: path.read_text() for path in workplace.sweep.glob("*/*/scores.json")}


def test_a_lost_folder_comes_back_and_nothing_runs_twice(server: S3Server, tmp_path: Path) -> None:
    workplace = workplace_in(tmp_path)
    done = workplace.plw("sweep", "sweep.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    before = workplace.trials()
    scores = {
        path.parent.name: path.read_text() for path in workplace.sweep.glob("*/*/scores.json")
    }
    assert len(scores) == 3
    shutil.rmtree(tmp_path / "runs")
    again = workplace.plw("sweep", "sweep.yaml")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 trials were done before and were skipped." in again.stdout
    assert workplace.trials() == before
    assert scores_of(workplace) == scores
    assert sorted(workplace.metric_steps(run.info.run_id, "loss") for run in workplace.runs()) == [
        [], [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]
    ]  # fmt: skip


def test_a_store_that_fails_one_trial_fails_that_one_alone(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace = workplace_in(tmp_path)
    monkeypatch.chdir(tmp_path)
    first = check(load_spec(Path("sweep.yaml")), address=None).plan.trials[0].id
    server.fault = lambda method, path: (
        "busy" if method in ("PUT", "POST") and f"/{first}/checkpoints/" in path else None
    )
    done = workplace.plw("sweep", "sweep.yaml", timeout_s=500)
    assert done.returncode == 1, done.stdout + done.stderr
    failed, other = workplace.trials()
    assert (failed["id"], failed["state"], other["state"]) == (first, "failed", "done")
    assert "the checkpoint of step 2 could not be written" in failed["error"]
    assert "did not take checkpoints/step-00000002/" in failed["error"]
    server.fault = lambda method, path: None
    again = workplace.plw("sweep", "sweep.yaml")
    assert again.returncode == 0, again.stdout + again.stderr
    assert [one["state"] for one in workplace.trials()] == ["done", "done"]
