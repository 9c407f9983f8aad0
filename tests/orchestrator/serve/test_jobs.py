"""/v1/fine_tuning/jobs with the official client; no job runs here."""

import warnings
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from orchestrator.serve.keys import Keys
from tests.orchestrator.serve.api import Server, chat_lines, config_of, jsonl, serving
from trainers.config import TrainConfig

FORMS: dict[str, dict[str, Any]] = {
    "top level": {"extra_body": {"prompt_loss_weight": 0.1}},
    "method": {
        "method": {
            "type": "supervised",
            "supervised": {"hyperparameters": {"prompt_loss_weight": 0.1}},
        }
    },
    "legacy": {"hyperparameters": {"prompt_loss_weight": 0.1}},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_weight_is_accepted_in_each_place(
    client: openai.OpenAI, training_file: str, form: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        job = client.fine_tuning.jobs.create(
            model="tiny", training_file=training_file, **FORMS[form]
        )
        again = client.fine_tuning.jobs.retrieve(job.id)
        again.model_dump_json()
    shown = again.model_dump()
    assert shown["hyperparameters"]["prompt_loss_weight"] == 0.1
    assert shown["method"]["supervised"]["hyperparameters"]["prompt_loss_weight"] == 0.1
    assert shown["train_config"]["loss"]["prompt_loss_weight"] == 0.1
    assert (again.object, again.status, again.integrations) == ("fine_tuning.job", "queued", None)


def test_the_weight_is_zero_if_it_is_not_set(client: openai.OpenAI, training_file: str) -> None:
    job = client.fine_tuning.jobs.create(model="tiny", training_file=training_file)
    assert job.model_dump()["prompt_loss_weight"] == 0


def test_hyperparameters_become_settings_of_plw_train(
    client: openai.OpenAI, training_file: str
) -> None:
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=training_file,
        seed=7,
        suffix="mine",
        metadata={"team": "a"},
        method={
            "type": "supervised",
            "supervised": {
                "hyperparameters": {
                    "n_epochs": 5,
                    "batch_size": 3,
                    "learning_rate_multiplier": 0.5,
                }
            },
        },
    )
    settings = job.model_dump()["train_config"]
    TrainConfig.model_validate(settings)
    assert settings["model"]["path"] == "tiny"
    assert settings["data"]["path"] == training_file
    assert settings["data"]["heldout_examples"] == 0
    assert settings["data"]["completion_turns"] == "all"
    assert settings["schedule"]["epochs"] == 5
    assert settings["batch"] == {
        "global_batch_size": 3,
        "micro_batch_size": 3,
        "packing": False,
        "max_tokens": None,
    }
    assert settings["optimizer"]["learning_rate"] == 0.005
    assert settings["seed"] == 7
    assert (job.seed, job.metadata) == (7, {"team": "a"})


def test_auto_values_are_those_of_the_configuration(
    client: openai.OpenAI, training_file: str
) -> None:
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=training_file,
        hyperparameters={"n_epochs": "auto", "batch_size": "auto"},
    )
    found = job.hyperparameters
    assert (found.n_epochs, found.batch_size, found.learning_rate_multiplier) == (2, 8, 1.0)


def test_an_auto_job_states_its_sweep(client: openai.OpenAI, training_file: str) -> None:
    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=training_file, extra_body={"prompt_loss_weight": "auto"}
    )
    shown = job.model_dump()
    assert shown["prompt_loss_weight"] == "auto"
    assert shown["auto"]["weights"] == [0, 0.01, 0.1, 1]
    assert shown["auto"]["seeds"] == [0, 1, 2]
    assert shown["auto"]["spec"]["search"]["budget"]["hours"] == 12
    assert shown["auto"]["spec"]["data"]["heldout_examples"] == 2  # a fifth of 12
    messages = [event.message for event in client.fine_tuning.jobs.list_events(job.id)]
    assert any("12 trials; budget: hours 12" in message for message in messages)


@pytest.mark.slow
def test_jobs_are_listed_in_pages_newest_first(tmp_path: Path) -> None:
    with serving(config_of(tmp_path / "model"), tmp_path / "data") as server:
        client = server.client()
        file = client.files.create(file=jsonl(chat_lines()), purpose="fine-tune").id
        ids = [
            client.fine_tuning.jobs.create(
                model="tiny", training_file=file, metadata={"even": str(i % 2 == 0)}
            ).id
            for i in range(150)
        ]
        assert [job.id for job in client.fine_tuning.jobs.list()] == ids[::-1]
        assert [job.id for job in client.fine_tuning.jobs.list(limit=100)] == ids[::-1]
        even = client.fine_tuning.jobs.list(limit=50, metadata={"even": "True"})
        assert [job.id for job in even] == ids[-2::-2]


def test_events_are_followed_with_after(client: openai.OpenAI, training_file: str) -> None:
    job = client.fine_tuning.jobs.create(model="tiny", training_file=training_file)
    client.fine_tuning.jobs.pause(job.id)
    client.fine_tuning.jobs.resume(job.id)
    expected = [
        "The job was resumed",
        "The job was paused",
        "prompt_loss_weight 0",
        f"Created fine-tuning job: {job.id}",
    ]
    assert [one.message for one in client.fine_tuning.jobs.list_events(job.id, limit=1)] == expected
    first = client.fine_tuning.jobs.list_events(job.id, limit=2)
    rest = client.fine_tuning.jobs.list_events(job.id, after=first.data[-1].id)
    assert [one.message for one in rest.data] == expected[2:]


def test_a_queued_job_is_paused_resumed_and_cancelled(
    client: openai.OpenAI, training_file: str
) -> None:
    jobs = client.fine_tuning.jobs
    job = jobs.create(model="tiny", training_file=training_file)
    paused = jobs.pause(job.id)
    assert (paused.status, paused.model_dump()["paused"]) == ("queued", True)
    assert jobs.pause(job.id).model_dump()["paused"]
    assert not jobs.resume(job.id).model_dump()["paused"]
    with pytest.raises(openai.BadRequestError) as caught:
        jobs.resume(job.id)
    assert caught.value.code == "not_paused"
    cancelled = jobs.cancel(job.id)
    assert cancelled.status == "cancelled"
    assert cancelled.finished_at is not None
    for change in (jobs.cancel, jobs.pause, jobs.resume):
        with pytest.raises(openai.BadRequestError) as caught:
            change(job.id)
        assert caught.value.code == "invalid_job_state"


class TestRepeatedRequests:
    def test_the_same_idempotency_key_gives_the_same_job(
        self, client: openai.OpenAI, training_file: str
    ) -> None:
        def create(key: str, seed: int) -> str:
            return client.fine_tuning.jobs.create(
                model="tiny",
                training_file=training_file,
                seed=seed,
                extra_headers={"Idempotency-Key": key},
            ).id

        assert create("a", 1) == create("a", 1)
        assert create("b", 1) != create("a", 1)
        with pytest.raises(openai.BadRequestError) as caught:
            create("a", 2)
        assert caught.value.code == "idempotency_key_reused"

    def test_a_retry_gives_the_same_job_and_a_new_request_another(
        self, client: openai.OpenAI, training_file: str
    ) -> None:
        def create(retries: int) -> str:
            return client.fine_tuning.jobs.create(
                model="tiny",
                training_file=training_file,
                seed=99,
                extra_headers={"x-stainless-retry-count": str(retries)},
            ).id

        first = create(0)
        assert create(1) == first
        second = create(0)
        assert second != first
        assert create(2) == second

    def test_a_deleted_file_does_not_end_its_job(
        self, client: openai.OpenAI, server: Server
    ) -> None:
        file = client.files.create(file=jsonl(chat_lines()), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(model="tiny", training_file=file.id)
        client.files.delete(file.id)
        data = server.service.folder.job(job.id).training
        assert data.read_text().splitlines() == chat_lines()


def test_state_survives_a_restart(tmp_path: Path) -> None:
    config = config_of(tmp_path / "model")
    with serving(config, tmp_path / "data") as server:
        client = server.client()
        file = client.files.create(file=jsonl(chat_lines()), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(model="tiny", training_file=file.id)
    with serving(config, tmp_path / "data") as server:
        client = server.client()
        assert client.files.retrieve(file.id) == file
        assert client.fine_tuning.jobs.retrieve(job.id) == job


class TestKeys:
    @pytest.fixture(scope="class")
    def keyed(self, tmp_path_factory: pytest.TempPathFactory) -> Any:
        folder = tmp_path_factory.mktemp("keyed")
        keys = Keys(folder / "data")
        found = {name: keys.add(name) for name in ("ann", "bob")}
        with serving(config_of(folder / "model"), folder / "data") as server:
            yield server, found

    def test_a_key_sees_only_its_own_files_and_jobs(
        self, keyed: tuple[Server, dict[str, str]]
    ) -> None:
        server, keys = keyed
        ann, bob = server.client(keys["ann"]), server.client(keys["bob"])
        file = ann.files.create(file=jsonl(chat_lines()), purpose="fine-tune")
        job = ann.fine_tuning.jobs.create(model="tiny", training_file=file.id)
        assert bob.files.list().data == []
        assert bob.fine_tuning.jobs.list().data == []
        for call in (
            lambda: bob.files.retrieve(file.id),
            lambda: bob.files.content(file.id),
            lambda: bob.files.delete(file.id),
            lambda: bob.files.list(after=file.id),
            lambda: bob.fine_tuning.jobs.retrieve(job.id),
            lambda: bob.fine_tuning.jobs.cancel(job.id),
            lambda: bob.fine_tuning.jobs.list_events(job.id),
            lambda: bob.fine_tuning.jobs.checkpoints.list(job.id),
        ):
            with pytest.raises(openai.NotFoundError):
                call()
        with pytest.raises(openai.BadRequestError) as caught:
            bob.fine_tuning.jobs.create(model="tiny", training_file=file.id)
        assert caught.value.code == "invalid_training_file"
        assert ann.fine_tuning.jobs.retrieve(job.id).status == "queued"

    def test_a_wrong_or_missing_key_is_rejected(self, keyed: tuple[Server, dict[str, str]]) -> None:
        with pytest.raises(openai.AuthenticationError) as caught:
            keyed[0].client("sk-plw-wrong").files.list()
        assert caught.value.code == "invalid_api_key"
        assert httpx2.get(f"{keyed[0].url}/v1/files").status_code == 401

    def test_keys_are_hashed_on_disk_and_only_the_owner_reads_them(
        self, keyed: tuple[Server, dict[str, str]]
    ) -> None:
        path = keyed[0].service.folder.root / "keys.json"
        assert path.stat().st_mode & 0o077 == 0
        assert not any(key in path.read_text() for key in keyed[1].values())

    def test_a_removed_key_stops_working_at_once(
        self, keyed: tuple[Server, dict[str, str]]
    ) -> None:
        server, _ = keyed
        keys = Keys(server.service.folder.root)
        client = server.client(keys.add("eve"))
        client.files.list()
        keys.remove("eve")
        with pytest.raises(openai.AuthenticationError):
            client.files.list()
