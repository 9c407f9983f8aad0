"""Models, the forwarding of chats to a model server by URL, and the page."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from orchestrator.serve.keys import Keys
from orchestrator.serve.records import EventRecord
from tests.orchestrator.serve.api import SETTINGS, Server, chat_lines, config_of, jsonl, serving

CHAT = {"messages": [{"role": "user", "content": "hello"}]}


@contextmanager
def vllm() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Run a server that answers like vLLM, and record the requests that it gets."""
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            requests.append({"path": self.path, **body})
            if body.get("temperature", 0) > 2:
                return self.answer(400, "application/json", b'{"error": {"message": "too hot"}}')
            head = {"id": "c", "created": 1, "model": body["model"]}
            if not body.get("stream"):
                message = {"role": "assistant", "content": "hi"}
                choice = {"index": 0, "finish_reason": "stop", "message": message}
                found = {**head, "object": "chat.completion", "choices": [choice]}
                return self.answer(200, "application/json", json.dumps(found).encode())
            chunks = [
                {**head, "object": "chat.completion.chunk", "choices": [
                    {"index": 0, "delta": {"content": text}}]}
                for text in ("h", "i")
            ]  # fmt: skip
            lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
            return self.answer(200, "text/event-stream", f"{lines}data: [DONE]\n\n".encode())

        def answer(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        server.shutdown()
        server.server_close()


class TestForwarding:
    @pytest.fixture(scope="class")
    def running(
        self, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[tuple[Server, list[Any]]]:
        folder = tmp_path_factory.mktemp("forward")
        with vllm() as (url, requests):
            entry = {"path": str(folder / "model"), "settings": SETTINGS, "url": url}
            config = config_of(folder / "model", models={"tiny": entry})
            with serving(config, folder / "data") as server:
                yield server, requests

    def test_a_chat_is_answered(self, running: tuple[Server, list[Any]]) -> None:
        answer = (
            running[0]
            .client()
            .chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=4
            )
        )
        assert (answer.model, answer.choices[0].message.content) == ("tiny", "hi")
        assert running[1][-1]["path"] == "/v1/chat/completions"
        assert running[1][-1]["max_tokens"] == 4

    def test_a_stream_is_passed_through(self, running: tuple[Server, list[Any]]) -> None:
        stream = (
            running[0]
            .client()
            .chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "hello"}], stream=True
            )
        )
        assert [chunk.choices[0].delta.content for chunk in stream] == ["h", "i"]

    def test_an_error_of_the_model_server_keeps_its_message(
        self, running: tuple[Server, list[Any]]
    ) -> None:
        with pytest.raises(openai.BadRequestError, match="too hot"):
            running[0].client().chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "hello"}], temperature=3
            )


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({}, 400, "model", "missing_required_parameter"),
        ({"model": 1}, 400, "model", "invalid_type"),
        ({"model": "ft:none", **CHAT}, 404, "model", "model_not_found"),
        ({"model": "../../etc", **CHAT}, 404, "model", "model_not_found"),
    ],
)
@pytest.mark.parametrize("endpoint", ["chat/completions", "completions"])
def test_a_malformed_chat_is_rejected(
    server: Server, endpoint: str, body: dict[str, Any], status: int, param: str, code: str
) -> None:
    answer = httpx2.post(f"{server.url}/v1/{endpoint}", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code)


@pytest.mark.parametrize(
    ("messages", "param", "code"),
    [
        (None, "messages", "missing_required_parameter"),
        ("hello", "messages", "invalid_type"),
        ([], "messages", "empty_array"),
        ([{"content": "a"}], "messages[0].role", "missing_required_parameter"),
    ],
)
def test_malformed_messages_are_rejected(
    server: Server, messages: Any, param: str, code: str
) -> None:
    body = {"model": "tiny", "messages": messages}
    answer = httpx2.post(f"{server.url}/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)


def tuned(server: Server, client: openai.OpenAI) -> str:
    """Return the name of a tuned model, as the runner records it."""
    file = client.files.create(file=jsonl(chat_lines()), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model="tiny", training_file=file.id, suffix="mine")
    store = server.service.store
    record = store.job(job.id)
    assert record is not None
    (server.service.folder.job(job.id).model).mkdir(parents=True)
    store.update_job(
        job.id,
        status="succeeded",
        fine_tuned_model=record.model_name,
        finished_at=record.created_at + 5,
        last_step=3,
        train_loss=0.5,
    )
    return record.model_name


def test_a_tuned_model_is_listed_retrieved_and_deleted(
    server: Server, client: openai.OpenAI
) -> None:
    name = tuned(server, client)
    assert name.startswith("ft:tiny:plw:mine:")
    assert {"tiny", name} <= {model.id for model in client.models.list()}
    model = client.models.retrieve(name)
    assert (model.id, model.object, model.owned_by) == (name, "model", "plw")
    job = next(one for one in client.fine_tuning.jobs.list() if one.fine_tuned_model == name)
    [checkpoint] = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert (checkpoint.fine_tuned_model_checkpoint, checkpoint.step_number) == (name, 3)
    assert checkpoint.metrics.train_loss == 0.5
    assert client.models.delete(name).deleted
    assert not server.service.folder.job(job.id).model.exists()
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(name)
    with pytest.raises(openai.PermissionDeniedError):
        client.models.delete("tiny")


def test_another_keys_model_is_not_found(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "data")
    ann, bob = keys.add("ann"), keys.add("bob")
    with serving(config_of(tmp_path / "model"), tmp_path / "data") as server:
        name = tuned(server, server.client(ann))
        other = server.client(bob)
        assert [model.id for model in other.models.list()] == ["tiny"]
        message: Any = {"role": "user", "content": "a"}
        for call in (
            lambda: other.models.retrieve(name),
            lambda: other.models.delete(name),
            lambda: other.chat.completions.create(model=name, messages=[message]),
        ):
            with pytest.raises(openai.NotFoundError):
                call()
        assert httpx2.get(server.url).status_code == 401
        assert httpx2.get(server.url, auth=("any", bob)).status_code == 200
        assert name not in httpx2.get(server.url, auth=("any", bob)).text
        assert name in httpx2.get(server.url, auth=("any", ann)).text
        [job] = server.client(ann).fine_tuning.jobs.list()
        report = server.service.folder.job(job.id).sweep / "report.html"
        report.parent.mkdir()
        report.write_text("mine")
        page = f"{server.url}/jobs/{job.id}/report"
        assert httpx2.get(page, auth=("any", bob)).status_code == 404
        assert httpx2.get(page, auth=("any", ann)).text == "mine"


def test_the_page_shows_status_curve_and_escaped_errors(
    server: Server, client: openai.OpenAI, training_file: str
) -> None:
    job = client.fine_tuning.jobs.create(model="tiny", training_file=training_file)
    store = server.service.store
    steps = [
        EventRecord(
            key=f"step-{step}",
            created_at=1,
            type="metrics",
            message="",
            data={"train_loss": loss},
        )
        for step, loss in enumerate((3.0, 2.0, 1.0))
    ]
    store.add_events(job.id, steps)
    error = {"code": "x", "message": "<script>alert(1)</script>", "param": None}
    store.update_job(job.id, status="failed", error=error)
    page = httpx2.get(server.url).text
    assert job.id in page
    assert 'points="0.00,5.00 50.00,50.00 100.00,95.00"' in page
    assert "training loss 3.000" in page
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_a_change_of_a_job_is_sent_to_the_page(
    server: Server, client: openai.OpenAI, training_file: str
) -> None:
    with httpx2.stream("GET", f"{server.url}/jobs/changes", timeout=20) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "retry: 3000"
        client.fine_tuning.jobs.create(model="tiny", training_file=training_file)
        assert next(line for line in lines if line.startswith("data")) == "data: changed"
