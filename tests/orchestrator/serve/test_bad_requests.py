"""Malformed requests: status, type, param and code of each."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import pytest

from tests.orchestrator.serve.api import Server, chat_lines, config_of, jsonl, serving

INVALID = "invalid_request_error"
BASE = {"model": "tiny", "training_file": "FILE"}
H = "method.supervised.hyperparameters"


def supervised(**hyperparameters: Any) -> dict[str, Any]:
    return {"method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}}


# Body of POST /v1/fine_tuning/jobs beyond BASE, then status, param and code.
BAD_JOBS: list[tuple[dict[str, Any], str | None, str]] = [
    ({"model": None}, "model", "missing_required_parameter"),
    ({"training_file": None}, "training_file", "missing_required_parameter"),
    ({"training_file": "file-none"}, "training_file", "invalid_training_file"),
    ({"training_file": "../serve.db"}, "training_file", "invalid_training_file"),
    ({"validation_file": "file-none"}, "validation_file", "invalid_validation_file"),
    ({"model": "gpt-5"}, "model", "model_not_available"),
    ({"model": 3}, "model", "invalid_type"),
    ({"promt_loss_weight": 0.1}, "promt_loss_weight", "unknown_parameter"),
    ({"prompt_loss_weight": 1.5}, "prompt_loss_weight", "decimal_above_max_value"),
    ({"prompt_loss_weight": -0.1}, "prompt_loss_weight", "decimal_below_min_value"),
    ({"prompt_loss_weight": "best"}, "prompt_loss_weight", "invalid_type"),
    ({"prompt_loss_weight": True}, "prompt_loss_weight", "invalid_type"),
    ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "integer_below_min_value"),
    ({"hyperparameters": {"n_epochs": 2.5}}, "hyperparameters.n_epochs", "invalid_type"),
    ({"hyperparameters": {"beta": 1}}, "hyperparameters.beta", "unknown_parameter"),
    (supervised(batch_size=99), "batch_size", "invalid_value"),
    (supervised(learning_rate_multiplier=0), f"{H}.learning_rate_multiplier",
     "decimal_below_min_value"),
    ({**supervised(n_epochs=2), "hyperparameters": {"n_epochs": 3}}, f"{H}.n_epochs",
     "invalid_value"),
    ({"method": {"type": "dpo"}}, "method.type", "unsupported_value"),
    ({"method": {}}, "method.type", "missing_required_parameter"),
    ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations",
     "unsupported_value"),
    ({"seed": -1}, "seed", "integer_below_min_value"),
    ({"seed": "1"}, "seed", "invalid_type"),
    ({"suffix": "s" * 65}, "suffix", "string_above_max_length"),
    ({"suffix": "a/b"}, "suffix", "invalid_value"),
    ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
    ({"metadata": {str(i): "x" for i in range(17)}}, "metadata", "object_above_max_properties"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "param", "code"), BAD_JOBS, ids=lambda value: str(value)[:40])
def test_a_malformed_job_is_rejected(
    server: Server, training_file: str, changes: dict[str, Any], param: str, code: str
) -> None:
    body = {**BASE, "training_file": training_file, **changes}
    answer = httpx2.post(f"{server.url}/v1/fine_tuning/jobs", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, INVALID)
    assert (error["param"], error["code"]) == (param, code)


def test_wandb_is_rejected_by_name(client: openai.OpenAI, training_file: str) -> None:
    with pytest.raises(openai.BadRequestError, match="'wandb' is not supported"):
        client.fine_tuning.jobs.create(
            model="tiny",
            training_file=training_file,
            integrations=[{"type": "wandb", "wandb": {"project": "p"}}],
        )


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b"\xff", b'{"seed": NaN}', b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_rejected(server: Server, body: bytes) -> None:
    answer = httpx2.post(f"{server.url}/v1/fine_tuning/jobs", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == INVALID


NOT_FOUND = [
    ("GET", "/v1/files/file-x", "id", None),
    ("GET", "/v1/files/..%2Fserve.db", None, None),
    ("GET", "/v1/files/file-x/content", "id", None),
    ("DELETE", "/v1/files/file-x", "id", None),
    ("GET", "/v1/fine_tuning/jobs/ftjob-x", "fine_tuning_job_id", "fine_tune_not_found"),
    ("GET", "/v1/fine_tuning/jobs/ftjob-x/events", "fine_tuning_job_id", "fine_tune_not_found"),
    ("POST", "/v1/fine_tuning/jobs/ftjob-x/cancel", "fine_tuning_job_id", "fine_tune_not_found"),
    ("GET", "/v1/nothing", None, None),
]


@pytest.mark.parametrize(("method", "path", "param", "code"), NOT_FOUND)
def test_what_does_not_exist_is_not_found(
    server: Server, method: str, path: str, param: str | None, code: str | None
) -> None:
    answer = httpx2.request(method, server.url + path)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (404, INVALID)
    assert (error["param"], error["code"]) == (param, code)


def test_checkpoint_permissions_are_not_supported(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="not supported") as caught:
        client.fine_tuning.checkpoints.permissions.retrieve("ft:x")
    assert (caught.value.status_code, caught.value.code) == (501, "not_supported")


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("limit=0", "limit", "integer_below_min_value"),
        ("limit=101", "limit", "integer_above_max_value"),
        ("limit=" + "9" * 5000, "limit", "integer_above_max_value"),
        ("limit=x", "limit", "invalid_type"),
        ("offset=1", "offset", "unknown_parameter"),
    ],
)
def test_a_malformed_query_is_rejected(server: Server, query: str, param: str, code: str) -> None:
    answer = httpx2.get(f"{server.url}/v1/fine_tuning/jobs?{query}")
    assert answer.status_code == 400
    assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == (param, code)


def test_bad_uploads_are_rejected_and_leave_nothing(client: openai.OpenAI, server: Server) -> None:
    before = sorted(server.service.folder.files.iterdir())
    for purpose, name, content, param, code in (
        ("batch", "a.jsonl", chat_lines(), "purpose", "invalid_value"),
        ("fine-tune", "a.csv", chat_lines(), "file", "invalid_file_format"),
        ("fine-tune", "a.jsonl", [], "file", "empty_file"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.files.create(file=jsonl(content, name), purpose=purpose)  # type: ignore[arg-type]
        assert (caught.value.param, caught.value.code) == (param, code)
    for content in ({"purpose": (None, "fine-tune")}, {"file": ("a.jsonl", b"{}")}):
        answer = httpx2.post(f"{server.url}/v1/files", files=content)  # type: ignore[arg-type]
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "missing_required_parameter"
    answer = httpx2.post(f"{server.url}/v1/files", content=b"x", headers={"Content-Type": "a/b"})
    assert answer.status_code == 400
    assert sorted(server.service.folder.files.iterdir()) == before


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}]
)
def test_requests_of_other_sites_are_rejected(
    server: Server, training_file: str, headers: dict[str, str]
) -> None:
    body = {"model": "tiny", "training_file": training_file}
    answer = httpx2.post(f"{server.url}/v1/fine_tuning/jobs", json=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden_origin")


class TestLimits:
    @pytest.fixture(scope="class")
    def limited(self, tmp_path_factory: pytest.TempPathFactory) -> Any:
        folder = tmp_path_factory.mktemp("limited")
        limits = {"file_mib": 1, "idle_s": 0.3}
        with serving(config_of(folder / "model", limits=limits), folder / "data") as running:
            yield running

    def test_an_oversized_file_is_rejected(self, limited: Server) -> None:
        big = ("a.jsonl", b" " * 1_500_000)
        with pytest.raises(openai.APIStatusError) as caught:
            limited.client().files.create(file=big, purpose="fine-tune")
        assert (caught.value.status_code, caught.value.code) == (413, "file_too_large")

    def test_a_chunked_oversized_file_is_rejected(self, limited: Server) -> None:
        head = b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        head += b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        chunks = [part, *([b"x" * 100_000] * 15)]
        with connection(limited) as sock:
            sock.sendall(head + b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks))
            assert sock.recv(100).startswith(b"HTTP/1.1 413")

    def test_an_upload_that_stops_arriving_is_ended(self, limited: Server) -> None:
        head = b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
        with connection(limited) as sock:
            sock.sendall(head + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b")
            assert sock.recv(100).startswith(b"HTTP/1.1 408")

    def test_an_upload_that_is_cut_leaves_nothing(self, limited: Server) -> None:
        before = sorted(limited.service.folder.files.iterdir())
        head = b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n"
        with connection(limited) as sock:
            sock.sendall(head + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b")
        assert limited.client().files.list().data == []
        assert sorted(limited.service.folder.files.iterdir()) == before


def connection(server: Server) -> socket.socket:
    port = urlsplit(server.url).port
    assert port is not None
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def test_too_many_requests_are_answered_with_429(tmp_path: Any) -> None:
    config = config_of(tmp_path / "model", limits={"requests_per_minute": 4})
    with serving(config, tmp_path / "data") as server:
        client = server.client()
        client.files.list()
        client.files.list()
        with pytest.raises(openai.RateLimitError) as caught:
            client.files.list()
    assert caught.value.code == "rate_limit_exceeded"
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert json.loads(caught.value.response.text)["error"]["type"] == "requests"
