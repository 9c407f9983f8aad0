"""`plw serve` as a process with real jobs: kills, pause, a bitwise equal model, a chat."""

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import psutil
import pytest

from tests.e2e.plw import poll
from tests.e2e.serve import Serve, assert_same_weights

pytestmark = pytest.mark.slow
EPOCHS = 40
# Of 40 examples in batches of 8, with a checkpoint after every second step.
NUM_STEPS = 5 * EPOCHS


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    running = Serve(tmp_path_factory.mktemp("serve"), jobs={"niceness": 3})
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
    alone = serve.train_alone(shown["train_config"], training, "alone")
    assert_same_weights(serve.job_folder(job.id) / "out" / "model", alone)


def rejected(serve: Serve) -> str:
    done = serve.workspace.plw(*serve.arguments)
    assert done.returncode == 2
    return done.stderr


@pytest.mark.timeout(900)
def test_a_running_job_is_paused_resumed_and_another_cancelled(serve: Serve) -> None:
    jobs = serve.client.fine_tuning.jobs
    training = serve.upload()
    job = jobs.create(
        model="tiny", training_file=training, hyperparameters={"n_epochs": 50, "batch_size": 1}
    )
    other = jobs.create(model="tiny", training_file=training)
    poll(lambda: len(serve.steps(job.id)) > 4, "step 5", timeout_s=400)
    process = psutil.Process(int((serve.job_folder(job.id) / "process.lock").read_text()))
    assert serve.process is not None
    assert process.nice() == psutil.Process(serve.process.pid).nice() + 3
    # A session's niceness, without which that of its processes has no effect.
    autogroup = Path(f"/proc/{process.pid}/autogroup")
    assert not autogroup.exists() or autogroup.read_text().endswith(" nice 3\n")
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
        with pytest.raises(openai.InternalServerError) as caught:
            serve.client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "Add 1 and 2."}]
            )
    finally:
        hidden.rename(weights)
    assert ended.status == "failed"
    assert (ended.error.code, ended.error.param) == ("model_not_loadable", "model")
    assert "tiny" in ended.error.message
    assert str(serve.folder) not in ended.error.message
    assert (caught.value.status_code, caught.value.code) == (503, "model_not_loadable")
    assert str(serve.folder) not in caught.value.response.text


def model_servers(serve: Serve) -> list[str]:
    """Return the names of the models that processes of the server have loaded."""
    assert serve.process is not None
    jobs = {str(serve.job_folder(job.id) / "out" / "model"): job.fine_tuned_model
            for job in serve.client.fine_tuning.jobs.list()}  # fmt: skip
    names = {**jobs, str(serve.folder / "model"): "tiny"}
    commands = [one.cmdline() for one in psutil.Process(serve.process.pid).children(recursive=True)]
    served = {path for command in commands if "serve" in command for path in command}
    return sorted(str(names[path]) for path in names.keys() & served)


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
    text = serve.client.completions.create(model=name, prompt="Add 1 and 2.", max_tokens=3)
    assert text.model == name
    assert model_servers(serve) == [name]
    # One model server at once is allowed: the other model's takes its place.
    base = serve.client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Add 1 and 2."}], max_tokens=3
    )
    assert base.model == "tiny"
    assert model_servers(serve) == ["tiny"]
    serve.client.models.delete(name)
    with pytest.raises(openai.NotFoundError):
        serve.client.models.retrieve(name)
