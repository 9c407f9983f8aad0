"""A judge over real HTTP that does what it is told: a scripted verdict, or one of many faults."""

import hashlib
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Decide = Callable[[str, str, str], str]
Say = Callable[[str], bytes]
FAULTS = ("500", "429", "stall", "nonsense", "half", "cut", "html", "no choices")


def longer(instruction: str, first: str, second: str) -> str:
    """The verdict of a judge who likes long outputs: 1, 2 or Tie."""
    if len(first) == len(second):
        return "Tie"
    return "1" if len(first) > len(second) else "2"


@dataclass
class Endpoint:
    """What it decides, how often it fails and what it was asked. Tokens: words of the question
    and one for each character of the reply.
    """

    decide: Decide = longer
    fault_share: float = 0.0
    faults: Sequence[str] = FAULTS
    retry_after: str = "0.01"
    key: str | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    most_at_once: int = 0
    base_url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _at_once: int = 0

    def kind_of(self, body: dict[str, Any]) -> str:
        """What to do with a request: by the question and how often it was asked, not by time."""
        question = json.dumps(body["messages"])
        with self._lock:
            times = self.asked[question]
            self.asked[question] += 1
            self.requests.append(body)
            draw = random.Random(hashlib.sha256(f"{times} {question}".encode()).digest())
            kind = "good" if draw.random() >= self.fault_share else draw.choice(self.faults)
            self.kinds[kind] += 1
        return kind

    def reply(self, body: dict[str, Any], *, is_nonsense: bool) -> dict[str, Any]:
        """A whole reply, counted as one that is paid for."""
        question = body["messages"][-1]["content"]
        text = "I would rather talk about the weather." if is_nonsense else self._verdict(question)
        with self._lock:
            usage = {
                "prompt_tokens": len(question.split()),
                "completion_tokens": len(text),
            }
            self.input_tokens += usage["prompt_tokens"]
            self.output_tokens += usage["completion_tokens"]
        message = {"role": "assistant", "content": text}
        return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}

    def _verdict(self, question: str) -> str:
        if "### Response 1:" in question:
            found = re.search(
                r"### Task:\n(.*?)\n\n### Response 1:\n(.*?)\n\n### Response 2:\n(.*?)\n\n###",
                question,
                re.DOTALL,
            )
            assert found
            return f"{self.decide(*found.groups())}\n\n### Reason: it reads better."
        start = question.index("{")
        shown, _ = json.JSONDecoder().raw_decode(question[start:])
        answers = shown["answers"]
        verdict = self.decide(shown["instruction"], answers["model_1"], answers["model_2"])
        one, two = {"1": (1, 2), "2": (2, 1), "Tie": (1, 1)}[verdict]
        return f"[{{'model': 'model_1', 'rank': {one}}}, {{'model': 'model_2', 'rank': {two}}}]"

    @contextmanager
    def counted(self) -> Iterator[None]:
        """One more request at once."""
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        yield
        with self._lock:
            self._at_once -= 1


class _Handler(BaseHTTPRequestHandler):
    endpoint: Endpoint
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        wanted = f"Bearer {self.endpoint.key}"
        given = self.headers.get("Authorization")
        if self.endpoint.key is not None and given != wanted:
            self._send(401, json.dumps({"error": f"no such key: {given}"}).encode())
            return
        with self.endpoint.counted():
            self._answer(body, self.endpoint.kind_of(body))

    def _answer(self, body: dict[str, Any], kind: str) -> None:
        match kind:
            case "good" | "nonsense":
                whole = self.endpoint.reply(body, is_nonsense=kind == "nonsense")
                self._send(200, json.dumps(whole).encode())
            case "500":
                self._send(500, b"oops")
            case "400":
                self._send(400, b'{"error": "too long"}')
            case "429":
                self._send(429, b"slower", {"Retry-After": self.endpoint.retry_after})
            case "stall":
                # Until the client has gone away, or the test is over.
                self.endpoint.closing.wait(30)
                self.close_connection = True
            case "half":
                self._send(200, b'{"choices": [{"message": {"role": "assis')
            case "cut":
                self._send(200, b'{"choices": [', {"Content-Length": "5000"})
                self.close_connection = True
            case "html":
                self._send(200, b"<html>gateway</html>")
            case "no choices":
                self._send(200, b'{"choices": []}')
            case _:
                raise AssertionError(kind)

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def serving(endpoint: Endpoint) -> Iterator[Endpoint]:
    """`endpoint` on a free port; its `base_url` says where."""
    handler = type("Handler", (_Handler,), {"endpoint": endpoint})
    server = _Server(("127.0.0.1", 0), handler)
    endpoint.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
