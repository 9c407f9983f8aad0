"""Jobs of `plw serve` with `prompt_loss_weight: "auto"`, from the sweep to the final model."""

import json
import random
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.killer import Killer
from tests.e2e.plw import poll
from tests.e2e.serve import Serve, assert_same_weights
from tests.orchestrator.serve.api import SETTINGS
from trainers.demo.data import python_docs

pytestmark = pytest.mark.slow
# In so few steps, PLW 1 learns far less about the short completions.
SMALL = {"weights": [0.0, 1.0], "seeds": 3, "default": 1.0, "budget": {"trials": 6}}


def run_auto(serve: Serve, training: str) -> dict[str, Any]:
    """Run an auto job on a file and return the job."""
    job = serve.client.fine_tuning.jobs.create(
        model="tiny", training_file=training, extra_body={"prompt_loss_weight": "auto"}
    )
    ended: dict[str, Any] = serve.wait(job.id, timeout_s=900).model_dump()
    assert ended["status"] == "succeeded", ended["error"]
    return ended


def check_final_model(serve: Serve, job: dict[str, Any], training: str) -> None:
    """Assert that job, settings and model have the weight of the search's result."""
    weight = job["auto"]["result"]["prompt_loss_weight"]
    assert job["prompt_loss_weight"] == job["hyperparameters"]["prompt_loss_weight"] == weight
    assert job["train_config"]["loss"]["prompt_loss_weight"] == weight
    model = serve.train_alone(job["train_config"], training, "alone")
    assert_same_weights(serve.job_folder(job["id"]) / "out" / "model", model)


@pytest.mark.timeout(900)
def test_auto_trains_the_final_model_at_the_weight_of_its_sweep(tmp_path: Path) -> None:
    serve = Serve(tmp_path, auto=SMALL)
    serve.start()
    try:
        training = serve.upload()
        job = run_auto(serve, training)
        messages = serve.messages(job["id"])[::-1]
        result = job["auto"]["result"]
        # The default is 1, so the weight comes from the sweep.
        assert (result["prompt_loss_weight"], result["is_conclusive"]) == (0, True)
        assert (result["trials_done"], result["trials"]) == (6, 6)
        trials = [message for message in messages if message.startswith("Sweep: PLW ")]
        assert len(trials) == 6
        [found] = [one for one in messages if "Cost:" in one]
        assert found.startswith("prompt_loss_weight auto: 0. Held-out completion loss: PLW 0 is")
        assert re.search(r"Cost: 6 of 6 trials, [1-9]\d* s of training and scoring", found)
        stages = [one for one in messages if re.match("Fine-tuning job|Training the final", one)]
        assert stages == [
            "Fine-tuning job started",
            "Training the final model with prompt_loss_weight 0",
        ]
        assert not any("Completions are short" in message for message in messages)
        check_final_model(serve, job, training)
        status = serve.workspace.plw("status", f"data/jobs/{job['id']}/sweep")
        assert "sweep auto: 6 of 6 done" in status.stdout
    finally:
        serve.close()


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("trials", "is_conclusive"), [(6, True), (1, False)], ids=["conclusive", "inconclusive"]
)
def test_auto_on_the_demos_short_data_gives_the_weight_of_plw_sweep(
    tmp_path: Path, trials: int, is_conclusive: bool
) -> None:
    auto = {**SMALL, "budget": {"trials": trials}, "default": 0.5, "heldout_examples": 64}
    # The tiny model has a token per byte.
    entry = {"path": "./model", "settings": {**SETTINGS, "data": {"max_length": 128}}}
    serve = Serve(tmp_path, auto=auto, models={"tiny": entry})
    serve.start()
    try:
        pairs = [(name, doc) for name, doc in python_docs() if len(name) + len(doc) < 100][:320]
        lines = [
            json.dumps({"messages": [
                {"role": "user", "content": doc}, {"role": "assistant", "content": name}
            ]})
            for name, doc in pairs
        ]  # fmt: skip
        training = serve.upload_lines(lines)
        job = run_auto(serve, training)
        result, spec = job["auto"]["result"], job["auto"]["spec"]
        assert result["is_conclusive"] == is_conclusive
        assert result["reason"]
        messages = serve.messages(job["id"])
        # The trials that run when the budget is spent finish.
        done = r"6" if is_conclusive else r"[1-3]"
        assert any(re.search(rf"Cost: {done} of 6 trials", message) for message in messages)
        check_final_model(serve, job, training)

        spec["model"]["path"], spec["data"]["path"] = "model", "mine.jsonl"
        (tmp_path / "sweep.yaml").write_text(json.dumps(spec))
        swept = serve.workspace.plw("sweep", "sweep.yaml", "-o", "sweep")
        assert swept.returncode == 0, swept.stderr
        best = serve.workspace.plw("train", "--best", "sweep", "-o", "best", "--config-only")
        if is_conclusive:
            assert f"PLW {result['prompt_loss_weight']:g}:" in best.stdout
        else:
            assert best.returncode == 2
            assert result["prompt_loss_weight"] == 0.5
    finally:
        serve.close()


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_sweep_whose_processes_are_killed_keeps_its_finished_trials(tmp_path: Path) -> None:
    serve = Serve(tmp_path, auto=SMALL, jobs={"niceness": 0, "crashes": 100})
    serve.start()
    killer = Killer(str(tmp_path), random.Random(0))
    try:
        job = serve.client.fine_tuning.jobs.create(
            model="tiny", training_file=serve.upload(), extra_body={"prompt_loss_weight": "auto"}
        )
        trials = serve.job_folder(job.id) / "sweep" / "trials"
        poll(lambda: any(trials.glob("*/scores.json")), "a trial's scores", timeout_s=600)
        for process in killer.victims():  # Like a power cut.
            with suppress(psutil.NoSuchProcess):
                process.kill()
        poll(lambda: not killer.victims(), "the end of all processes", timeout_s=60)
        scored = {path: path.stat().st_mtime_ns for path in trials.glob("*/scores.json")}
        serve.start()
        ended = serve.wait(job.id, timeout_s=900).model_dump()
        assert ended["status"] == "succeeded", ended["error"]
        assert ended["auto"]["result"]["trials_done"] == 6
        assert ended["prompt_loss_weight"] == 0
        assert {path: path.stat().st_mtime_ns for path in scored} == scored
        messages = [one for one in serve.messages(job.id) if one.startswith("Sweep: PLW ")]
        assert len({message.partition(" done")[0] for message in messages}) == 6
        assert len(messages) == 6
    finally:
        serve.close()
