"""A fake object store: moto's S3 over HTTP, with injected faults."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "sweeps"
ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)
_DENIED = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code>'
    b"<Message>Access Denied</Message></Error>"
)

# Maps a request's method and path to a fault; None answers it normally.
Fault = Callable[[str, str], str | None]


class S3Server:
    """S3 at `uri`. `fault` returns `busy` (503), `denied` (403), `late` (after 2 s) or None."""

    def __init__(self) -> None:
        self.fault: Fault = lambda method, path: None
        self.faults = 0
        self.requests: list[tuple[str, str]] = []
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._released = threading.Event()
        self._server = make_server("127.0.0.1", 0, self._answer, True, request_handler=Silent)
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def client(self) -> Any:
        """Return a boto3 client of this store."""
        return boto3.client("s3", endpoint_url=self.uri)

    def names(self) -> list[str]:
        """Return the names of all objects in the bucket."""
        listed = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [one["Key"] for page in listed for one in page.get("Contents", [])]

    def _answer(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        kind = self.fault(method, path)
        if kind is not None:
            self.faults += 1
        if kind in ("busy", "denied"):
            # Unread bytes would be parsed as the next request.
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            status = "503 Slow Down" if kind == "busy" else "403 Forbidden"
            start(status, [("Content-Type", "application/xml"), ("Connection", "close")])
            return [_SLOW_DOWN if kind == "busy" else _DENIED]
        if kind == "late":
            self._released.wait(2)
        answer: Iterable[bytes] = self._moto(environ, start)
        return answer


class Silent(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Serve an empty bucket; this process and its children find it through the environment."""
    server = S3Server()
    with patch.dict("os.environ", {**ACCOUNT, "AWS_ENDPOINT_URL": server.uri}):
        try:
            server.client().create_bucket(Bucket=BUCKET)
            yield server
        finally:
            # Moto's buckets live as long as its process.
            server.fault = lambda method, path: None
            for name in server.names():
                server.client().delete_object(Bucket=BUCKET, Key=name)
            server.client().delete_bucket(Bucket=BUCKET)
            server.close()
