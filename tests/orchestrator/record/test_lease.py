"""Two heads on one sweep in an object store."""

import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from orchestrator.record.lease import LEASE, sweep_lease
from tests.e2e.plw import poll
from tests.object_stores import BUCKET, S3Server, s3_server
from trainers.foundation.errors import InputError
from trainers.foundation.object_store import ObjectStore

URI = f"s3://{BUCKET}/runs/mine"


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


def lost() -> None:
    pytest.fail("the lease was lost")


def write_lease(holder: str) -> None:
    ObjectStore(URI).upload_text(f'{{"holder": "{holder}", "number": 7}}'.ljust(512), LEASE)


def leases(server: S3Server) -> list[str]:
    return [name for name in server.names() if name.endswith(LEASE)]


def test_a_second_head_is_rejected_while_the_first_one_runs(server: S3Server) -> None:
    with (
        sweep_lease(URI, lost, lease_s=0.4, settle_s=0),
        pytest.raises(InputError, match=f"the sweep in {URI} runs on another head"),
        sweep_lease(URI, lost, lease_s=60, settle_s=0),
    ):
        pass
    assert leases(server) == []


def test_the_lease_of_a_dead_head_expires(server: S3Server) -> None:
    write_lease("dead")
    with sweep_lease(URI, lost, lease_s=0.4, settle_s=0):
        assert leases(server) == [f"runs/mine/{LEASE}"]
    assert leases(server) == []


def test_a_head_does_not_wait_for_a_dead_process_of_its_own_host(server: S3Server) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    write_lease(f"{socket.gethostname()}/{process.pid}/0a1b2c3d")
    # Far longer than the test's own time limit.
    with sweep_lease(URI, lost, lease_s=36_000, settle_s=0):
        assert leases(server) == [f"runs/mine/{LEASE}"]


def test_a_head_that_lost_its_lease_stops_and_leaves_the_other_one(server: S3Server) -> None:
    stopped = threading.Event()
    with sweep_lease(URI, stopped.set, lease_s=0.4, settle_s=0):
        write_lease("other")
        poll(stopped.is_set, "the first head to notice")
    assert leases(server) == [f"runs/mine/{LEASE}"]


def test_of_two_heads_at_the_same_moment_the_last_one_runs(server: S3Server) -> None:
    was_written = False

    def other_head(method: str, path: str) -> None:
        """Write another head's lease after ours, and before ours is read again."""
        nonlocal was_written
        if path.endswith(LEASE) and method == "PUT":
            was_written = True
        elif path.endswith(LEASE) and was_written:
            server.fault = lambda method, path: None
            body = b'{"holder": "other", "number": 0}'.ljust(512)
            server.client().put_object(Bucket=BUCKET, Key=f"runs/mine/{LEASE}", Body=body)

    server.fault = other_head
    with (
        pytest.raises(InputError, match="runs on another head, other"),
        sweep_lease(URI, lost, lease_s=60, settle_s=0),
    ):
        pass
    assert was_written
    assert leases(server) == [f"runs/mine/{LEASE}"]
