"""Tests of `Jobs` against servers that are not Ray, are too old, fail or do not respond."""

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestrator.cluster.address import dashboard_url, usable_url
from orchestrator.cluster.job_package import JobPackage
from orchestrator.cluster.jobs import Jobs
from orchestrator.foundation.packages import code_digest
from tests.orchestrator.plw import plw, refused
from trainers.foundation.errors import TrainingError

VERSION = b'{"version": "4", "ray_version": "2.60.0", "ray_commit": "-", "session_name": "-"}'


@contextmanager
def server(
    version: bytes | None,
    jobs: bytes = b"[]",
    status: int = 200,
    submissions: Sequence[tuple[int, bytes]] = (),
) -> Iterator[str]:
    """Serve `version` as Ray's version, or never respond for None."""
    posted = iter(submissions)
    may_end = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_version = self.path.endswith("/version")
            if version is None:
                may_end.wait(60)
                return
            body = version if is_version else jobs
            self.send_response(200 if is_version else status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, body = next(posted)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Do not log."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        may_end.set()
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.mark.parametrize("page", [b"<html>Welcome</html>", b"{}", b"[]"])
def test_a_web_page_is_not_a_cluster(page: bytes) -> None:
    with server(page) as address:
        message = refused("status", "mine", "--address", address)
    assert f"no Ray cluster responds at {address}: the server there is not Ray" in message


@pytest.mark.parametrize("version", ["2.9.0", "2.61.0"])
def test_another_release_of_ray_is_rejected(version: str) -> None:
    with server(VERSION.replace(b"2.60.0", version.encode())) as address:
        message = refused("status", "mine", "--address", address)
    assert f"the cluster runs Ray {version}; a sweep needs 2.60" in message


def test_an_unresponsive_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.cluster.client.RESPONSE_TIMEOUT_S", 0.2)
    with server(None) as address:
        message = refused("status", "mine", "--address", address)
    assert "no Ray cluster responds at" in message
    assert "Read timed out" in message


@pytest.mark.parametrize("address", ["ftp://127.0.0.1", "os://", ""])
def test_an_address_with_another_scheme_is_rejected(address: str) -> None:
    assert "no Ray cluster responds" in refused("status", "mine", "--address", address)


def test_a_rejected_address_is_shown_without_its_password() -> None:
    message = refused("status", "mine", "--address", "http://me:secret@127.0.0.1:9")
    assert "no Ray cluster responds at http://127.0.0.1:9" in message
    assert "secret" not in message


def test_an_error_response_of_a_cluster_becomes_one_line() -> None:
    response = (
        b"Traceback (most recent call last):\n  ...\nRuntimeError: the head is out of memory\n"
    )
    with server(VERSION, response, status=500) as address:
        jobs = Jobs.connect(address, f"--address {address}")
        with pytest.raises(
            TrainingError,
            match="request to the cluster failed: RuntimeError: the head is out of memory",
        ):
            jobs.sweeps()


def test_a_submit_is_repeated_until_the_head_can_start_jobs(tmp_path: Path) -> None:
    submissions = [
        (500, b"No available agent to submit job, please try again later."),
        (200, b'{"job_id": "first", "submission_id": "first"}'),
    ]
    with server(VERSION, submissions=submissions) as address:
        jobs = Jobs.connect(address, f"--address {address}")
        assert jobs.submit_sweep("mine", package(tmp_path)) == "first"


def package(folder: Path) -> JobPackage:
    return JobPackage(folder=folder, code="c0de", spec="5bec", num_bytes=0, files=())


def job(status: str, **metadata: str) -> dict[str, object]:
    return {
        "type": "SUBMISSION", "submission_id": "plw-mine-1", "status": status, "entrypoint": "e",
        "metadata": {"plw_sweep": "mine", **metadata},
    }  # fmt: skip


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    path = tmp_path / "mine.yaml"
    path.write_text(
        "model: {path: /mnt/model}\ndata: {path: /mnt/data.jsonl, template: plain}\n"
        "search: {space: {loss.prompt_loss_weight: [0, 1]}}\n"
    )
    return path


@pytest.mark.parametrize(("code", "is_other"), [("c0de", True), (code_digest(), False)])
def test_submit_follows_a_running_sweep_of_this_name(
    spec: Path, monkeypatch: pytest.MonkeyPatch, code: str, *, is_other: bool
) -> None:
    # Any submission would fail: the server has no answer for one.
    with server(VERSION, json.dumps([job("RUNNING", plw_code=code)]).encode()) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        output = plw("submit", spec, "--detach").output
    assert "sweep mine is running as job plw-mine-1; nothing was sent\n" in output
    assert f"plw status mine --address {address}" in output
    assert ("warning: it runs another spec, other files or other code" in output) is is_other


def test_an_ended_sweep_is_submitted_again(spec: Path) -> None:
    listed = json.dumps([job("SUCCEEDED")]).encode()
    response = (200, b'{"job_id": "second", "submission_id": "second"}')
    with server(VERSION, listed, submissions=[response] * 2) as address:
        output = plw("submit", spec, "--detach", "--address", address).output
    assert "sweep mine: submitted as job second" in output


def test_a_dashboard_is_recognised_without_its_scheme() -> None:
    with server(VERSION) as address:
        assert dashboard_url(address) == address
        assert dashboard_url(address.removeprefix("http://")) == address


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:6379", "ray://localhost:10001"])
def test_a_local_dashboard_of_this_machine_is_used(address: str) -> None:
    assert usable_url("http://127.0.0.1:8265", address) == "http://127.0.0.1:8265"


def test_a_local_dashboard_of_another_machine_is_not_looked_for_here() -> None:
    assert usable_url("http://203.0.113.9:8265", "203.0.113.9:6379") == "http://203.0.113.9:8265"
    with pytest.raises(ValueError, match="listens only on the head itself: use --cluster"):
        usable_url("http://127.0.0.1:8265", "203.0.113.9:6379")


def test_nothing_listens_at_an_address_of_the_control_store() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    message = refused("status", "mine", "--address", address)
    assert f"no Ray cluster can be used at {address}: " in message


def test_a_sweep_cannot_be_driven_through_a_dashboard(spec: Path) -> None:
    message = refused("plan", spec, "--address", "http://head:8265")
    assert "http://head:8265 is the dashboard of a cluster, at which jobs are submitted" in message
    assert "run plw submit with it, or give HOST:6379" in message
