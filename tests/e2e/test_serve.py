"""`plw serve` as a process with real jobs: kills, pause, a bitwise equal model, a chat."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest
from ruamel.yaml import YAML
from safetensors.numpy import load_file

from tests.e2e.plw import Workspace, poll
from tests.orchestrator.serve.api import SETTINGS, chat_lines, jsonl
from tests.tiny_model import save_tiny_model

pytestmark = pytest.mark.slow
EPOCHS = 40
# Of 40 examples in batches of 8, with a checkpoint after every second step.
NUM_STEPS = 5 * EPOCHS


class Serve:
    """A workspace with a tiny model and a server that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.workspace = Workspace(folder)
        self.folder = folder
        save_tiny_model(folder / "model")
        config = {
            "models": {"tiny": {"path": "./model", "settings": SETTINGS}},
            "auto": {"weights": [0.0, 1.0], "seeds": 2, "budget": {"trials": 4}},
            "jobs": {"niceness": 0},
        }
        with (folder / "serve.yaml").open("w") as file:
            YAML(typ="safe").dump(config, file)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen[str] | None = None
        url = f"http://127.0.0.1:{self.port}/v1"
        self.client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120)

    @property
    def arguments(self) -> list[str]:
        return ["serve", "--config", "serve.yaml", "--data", "data", "--port", str(self.port)]

    def start(self) -> None:
        self.process = self.workspace.start(*self.arguments)
        poll(self.answers, "the server")

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.process.communicate()[0]
        try:
            self.client.models.list()
        except openai.APIConnectionError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL the server only; its job goes on."""
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    def kill_job(self, job_id: str) -> None:
        """SIGKILL the process of a job, unless it has just ended."""
        with suppress(ProcessLookupError):
            os.kill(int((self.job_folder(job_id) / "process.lock").read_text()), signal.SIGKILL)

    def job_folder(self, job_id: str) -> Path:
        return self.folder / "data" / "jobs" / job_id

    def steps(self, job_id: str) -> list[int]:
        """Return the steps in the metrics of a job."""
        path = self.job_folder(job_id) / "out" / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line)["step"] for line in lines]

    def wait(self, job_id: str, timeout_s: float = 400) -> Any:
        """Return the job once it has ended."""
        jobs = self.client.fine_tuning.jobs
        ended = ("succeeded", "failed", "cancelled")
        poll(lambda: jobs.retrieve(job_id).status in ended, f"the end of {job_id}", timeout_s)
        return jobs.retrieve(job_id)

    def messages(self, job_id: str) -> list[str]:
        return [one.message for one in self.client.fine_tuning.jobs.list_events(job_id)]

    def upload(self, count: int = 40) -> str:
        file = jsonl(chat_lines(count))
        return self.client.files.create(file=file, purpose="fine-tune").id

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.communicate()


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    running = Serve(tmp_path_factory.mktemp("serve"))
    running.start()
    yield running
    running.close()


@pytest.mark.timeout(900)
def test_a_job_survives_kills_and_gives_bitwise_the_model_of_plw_train(serve: Serve) -> None:
    jobs = serve.client.fine_tuning.jobs
    training, validation = serve.upload(), serve.upload(12)
    job = jobs.create(
        model="tiny",
        training_file=training,
        validation_file=validation,
        seed=3,
        hyperparameters={"n_epochs": EPOCHS},
        extra_body={"prompt_loss_weight": 0.1},
    )
    serve.kill()  # right after the create
    serve.start()
    assert [one.id for one in jobs.list()] == [job.id]
    poll(lambda: len(serve.steps(job.id)) > 4, "step 5", timeout_s=400)
    serve.kill()  # the job goes on, and the next server finds it
    serve.start()
    assert "another plw serve uses this folder" in rejected(serve)
    if len(serve.steps(job.id)) < NUM_STEPS:
        serve.kill_job(job.id)
    ended = serve.wait(job.id)
    assert ended.status == "succeeded", ended.error
    assert serve.steps(job.id) == [*range(1, NUM_STEPS + 1)]
    rows = serve.client.files.content(ended.result_files[0]).text.splitlines()
    assert len(rows) == NUM_STEPS + 1
    shown = ended.model_dump()
    messages = serve.messages(job.id)
    assert sum(message.startswith("Step ") for message in messages) == NUM_STEPS
    assert any("Completions are short" in message for message in messages) is False
    assert any("generation ratio R_g" in message for message in messages)
    assert any("Validation loss" in message for message in messages)
    assert str(serve.folder) not in json.dumps(shown) + "".join(messages)
    check_bitwise(serve, shown, training)


def rejected(serve: Serve) -> str:
    done = serve.workspace.plw(*serve.arguments)
    assert done.returncode == 2
    return done.stderr


def check_bitwise(serve: Serve, job: dict[str, Any], training: str) -> None:
    """Assert that `plw train` with the reported settings gives the job's model."""
    settings = job["train_config"]
    assert (settings["model"]["path"], settings["data"]["path"]) == ("tiny", training)
    settings["model"]["path"] = "model"
    settings["data"]["path"] = "mine.jsonl"
    (serve.folder / "mine.jsonl").write_bytes(serve.client.files.content(training).read())
    (serve.folder / "train.yaml").write_text(json.dumps(settings))
    done = serve.workspace.plw("train", "train.yaml", "-o", "alone")
    assert done.returncode == 0, done.stderr
    ours = load_file(serve.job_folder(job["id"]) / "out" / "model" / "model.safetensors")
    alone = load_file(serve.folder / "alone" / "model" / "model.safetensors")
    assert ours.keys() == alone.keys()
    assert all(ours[name].tobytes() == alone[name].tobytes() for name in ours)


@pytest.mark.timeout(900)
def test_a_running_job_is_paused_resumed_and_another_cancelled(serve: Serve) -> None:
    jobs = serve.client.fine_tuning.jobs
    training = serve.upload()
    job = jobs.create(
        model="tiny", training_file=training, hyperparameters={"n_epochs": 50, "batch_size": 1}
    )
    other = jobs.create(model="tiny", training_file=training)
    poll(lambda: len(serve.steps(job.id)) > 4, "step 5", timeout_s=400)
    assert jobs.pause(job.id).model_dump()["paused"]
    checkpoints = serve.job_folder(job.id) / "out" / "checkpoints"
    assert serve.wait(other.id).status == "succeeded"  # it starts once the other has ended
    steps = serve.steps(job.id)
    assert steps[-1] < 2000
    assert (checkpoints / f"step-{steps[-1]:08d}" / "COMPLETE.json").exists()
    assert jobs.retrieve(job.id).status == "queued"
    jobs.resume(job.id)
    poll(lambda: len(serve.steps(job.id)) > len(steps), "another step", timeout_s=400)
    assert jobs.cancel(job.id).status == "cancelled"
    poll(lambda: not (serve.job_folder(job.id) / "out").exists(), "the end of the process")
    log = (serve.job_folder(job.id) / "log.txt").read_text()
    assert f"resumed from step {steps[-1]} of 2000" in log


@pytest.mark.timeout(900)
def test_a_model_that_does_not_load_fails_the_job(serve: Serve) -> None:
    weights = serve.folder / "model" / "model.safetensors"
    hidden = weights.rename(weights.with_suffix(".hidden"))
    try:
        job = serve.client.fine_tuning.jobs.create(model="tiny", training_file=serve.upload())
        ended = serve.wait(job.id)
    finally:
        hidden.rename(weights)
    assert ended.status == "failed"
    assert (ended.error.code, ended.error.param) == ("model_not_loadable", "model")
    assert "tiny" in ended.error.message
    assert str(serve.folder) not in ended.error.message


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_auto_gives_the_weight_of_plw_sweep_for_the_same_spec(serve: Serve) -> None:
    training = serve.upload()
    job = serve.client.fine_tuning.jobs.create(
        model="tiny", training_file=training, extra_body={"prompt_loss_weight": "auto"}
    )
    ended = serve.wait(job.id, timeout_s=1500).model_dump()
    assert ended["status"] == "succeeded", ended["error"]
    result, spec = ended["auto"]["result"], ended["auto"]["spec"]
    assert (result["trials_done"], result["trials"]) == (4, 4)
    assert any("Cost: 4 of 4 trials" in message for message in serve.messages(job.id))
    assert ended["hyperparameters"]["prompt_loss_weight"] == result["prompt_loss_weight"]
    spec["model"]["path"], spec["data"]["path"] = "model", "mine.jsonl"
    (serve.folder / "mine.jsonl").write_bytes(serve.client.files.content(training).read())
    (serve.folder / "sweep.yaml").write_text(json.dumps(spec))
    swept = serve.workspace.plw("sweep", "sweep.yaml", "-o", "sweep")
    assert swept.returncode == 0, swept.stderr
    best = serve.workspace.plw("train", "--best", "sweep", "-o", "best", "--config-only")
    if result["is_conclusive"]:
        assert f"PLW {result['prompt_loss_weight']:g}:" in best.stdout
    else:
        assert best.returncode == 2
        assert result["prompt_loss_weight"] == 0


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_tuned_model_answers_a_chat_and_is_deleted(serve: Serve) -> None:
    job = serve.client.fine_tuning.jobs.create(model="tiny", training_file=serve.upload())
    name = serve.wait(job.id).fine_tuned_model
    answer = serve.client.chat.completions.create(
        model=name, messages=[{"role": "user", "content": "Add 1 and 2."}], max_tokens=3
    )
    assert answer.choices[0].message.role == "assistant"
    assert str(serve.folder) not in answer.model_dump_json()
    stream = serve.client.chat.completions.create(
        model=name,
        messages=[{"role": "user", "content": "Add 1 and 2."}],
        max_tokens=3,
        stream=True,
    )
    chunks = list(stream)
    assert chunks
    assert all(str(serve.folder) not in chunk.model_dump_json() for chunk in chunks)
    serve.client.models.delete(name)
    with pytest.raises(openai.NotFoundError):
        serve.client.models.retrieve(name)
