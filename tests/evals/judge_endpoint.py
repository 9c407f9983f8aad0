"""Fake judge over real HTTP: scripted verdicts and faults."""

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
from typing import Any, Literal

Decide = Callable[[str, str, str], str]
FAULTS = ("500", "429", "stall", "nonsense", "half", "cut", "html", "no choices")


def longer(instruction: str, first: str, second: str) -> str:
    """Return the verdict of a judge that prefers longer outputs: 1, 2 or Tie."""
    if len(first) == len(second):
        return "Tie"
    return "1" if len(first) > len(second) else "2"


@dataclass
class Endpoint:
    """Settings of the fake judge, and what it received.

    It counts the words of the last message as input tokens and the characters of the reply as
    output tokens. `structured_output` is how it treats `response_format`: many endpoints ignore
    unknown fields.
    """

    decide: Decide = longer
    fault_share: float = 0.0
    faults: Sequence[str] = FAULTS
    retry_after: str = "0.01"
    key: str | None = None
    structured_output: Literal["ignored", "supported", "rejected"] = "ignored"
    requests: list[dict[str, Any]] = field(default_factory=list)
    attempts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    most_at_once: int = 0
    base_url: str = ""
    served_model: str = "strict-1-2026"
    closing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _at_once: int = 0

    def kind_of(self, body: dict[str, Any]) -> str:
        """Return the kind of answer, drawn by the messages and the attempt, not by time."""
        messages = json.dumps(body["messages"])
        with self._lock:
            attempt = self.attempts[messages]
            self.attempts[messages] += 1
            self.requests.append(body)
            draw = random.Random(hashlib.sha256(f"{attempt} {messages}".encode()).digest())
            kind = "good" if draw.random() >= self.fault_share else draw.choice(self.faults)
            self.kinds[kind] += 1
        return kind

    def reply(self, body: dict[str, Any], *, is_nonsense: bool) -> dict[str, Any]:
        """Return a complete reply, and count its tokens as billed."""
        prompt = body["messages"][-1]["content"]
        is_structured = "response_format" in body and self.structured_output == "supported"
        text = "I would rather talk about the weather."
        if not is_nonsense:
            text = self._reply_text(prompt, is_structured=is_structured)
        with self._lock:
            usage = {
                "prompt_tokens": len(prompt.split()),
                "completion_tokens": len(text),
            }
            self.input_tokens += usage["prompt_tokens"]
            self.output_tokens += usage["completion_tokens"]
        message = {"role": "assistant", "content": text}
        return {
            "choices": [{"message": message, "finish_reason": "stop"}],
            "usage": usage,
            "model": self.served_model,
            "system_fingerprint": "fp_7",
        }

    def _reply_text(self, prompt: str, *, is_structured: bool) -> str:
        if "### Response 1:" in prompt:
            found = re.search(
                r"### Task:\n(.*?)\n\n### Response 1:\n(.*?)\n\n### Response 2:\n(.*?)\n\n###",
                prompt,
                re.DOTALL,
            )
            assert found
            verdict = self.decide(*found.groups())
            if is_structured:
                return json.dumps({"verdict": verdict})
            return f"{verdict}\n\n### Reason: it reads better."
        if "python dictionaries" in prompt:  # AlpacaEval's own prompt
            verdict = self.decide(*re.findall(r': """(.*?)"""\,?\n', prompt, re.DOTALL))
        else:
            content, _ = json.JSONDecoder().raw_decode(prompt[prompt.index("{") :])
            answers = content["answers"]
            verdict = self.decide(content["instruction"], answers["model_1"], answers["model_2"])
        one, two = {"1": (1, 2), "2": (2, 1), "Tie": (1, 1)}[verdict]
        if is_structured:
            return json.dumps({"model_1": one, "model_2": two})
        return f"[{{'model': 'model_1', 'rank': {one}}}, {{'model': 'model_2', 'rank': {two}}}]"

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the concurrent requests."""
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
        expected = f"Bearer {self.endpoint.key}"
        received = self.headers.get("Authorization")
        if self.endpoint.key is not None and received != expected:
            self._send(401, json.dumps({"error": f"no such key: {received}"}).encode())
            return
        if "response_format" in body and self.endpoint.structured_output == "rejected":
            self._send(400, b'{"error": "response_format of type json_schema is not supported"}')
            return
        with self.endpoint.counted():
            self._answer(body, self.endpoint.kind_of(body))

    def _answer(self, body: dict[str, Any], kind: str) -> None:
        match kind:
            case "good" | "nonsense":
                reply = self.endpoint.reply(body, is_nonsense=kind == "nonsense")
                self._send(200, json.dumps(reply).encode())
            case "500":
                self._send(500, b"oops")
            case "400":
                self._send(400, b'{"error": "too long"}')
            case "429":
                self._send(429, b"slower", {"Retry-After": self.endpoint.retry_after})
            case "stall":
                # Until the client disconnects, or the test ends.
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
    """Serve `endpoint` on a free port, and set its `base_url`."""
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
