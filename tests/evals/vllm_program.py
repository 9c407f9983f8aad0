"""A server with the interface of `vllm serve` over our engine, started as a program of its own.

Usage: `python vllm_program.py serve MODEL --host H --port P ...`, like vLLM's command. It accepts
the arguments and the fields of requests that plw uses, and rejects others, so a misspelt one fails.
With `--fault`, it fails in one of the ways in which a server can fail.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FIELDS = {
    "model", "prompt", "max_tokens", "temperature", "stop", "include_stop_str_in_output",
    "skip_special_tokens", "stop_token_ids", "return_token_ids",
}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    complete: Any
    options: argparse.Namespace
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(200 if self.path == "/health" else 404, b"")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = self.options.fault
        if fault == "dies":
            print("CUDA error: an illegal memory access", flush=True)
            os._exit(7)
        if fault == "error":
            self._send(500, b'{"error": {"message": "EngineCore died"}}')
            return
        if len(body["prompt"]) + body["max_tokens"] > self.options.max_model_len:
            message = f"maximum context length is {self.options.max_model_len} tokens"
            self._send(400, json.dumps({"error": {"message": message}}).encode())
            return
        assert set(body) == FIELDS, sorted(set(body) ^ FIELDS)
        assert body["model"] == self.options.served_model_name
        choice: dict[str, Any] = {"index": 0, "text": "", "finish_reason": "stop"}
        if fault != "old":
            choice["token_ids"] = self.complete(body)
        self._send(200, json.dumps({"choices": [choice]}).encode())

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def engine(model: str) -> Any:
    """Return a function that completes a request with our engine and appends the end token."""
    from evals.engine.batching import ignore_progress
    from evals.engine.generation import generate
    from evals.engine.loading import load_model

    loaded = load_model(model, template="plain", max_length=128, engine="padded")
    lock = threading.Lock()

    def complete(body: dict[str, Any]) -> list[int]:
        with lock:
            loaded.eos_token_ids[:] = body["stop_token_ids"]
            [output] = generate(
                loaded,
                [body["prompt"]],
                max_new_tokens=body["max_tokens"],
                batch_size=1,
                on_progress=ignore_progress,
                stop_strings=body["stop"],
            )
        text = loaded.decode(output)
        is_ended = len(output) == body["max_tokens"] or any(stop in text for stop in body["stop"])
        return output if is_ended else [*output, body["stop_token_ids"][0]]

    return complete


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--generation-config", choices=["vllm"], required=True)
    parser.add_argument("--dtype", choices=["bfloat16"], required=True)
    parser.add_argument("--max-model-len", type=int, default=512)
    parser.add_argument("--fault", choices=["dies", "error", "old", "start", "hangs"])
    parser.add_argument("--processes", type=Path, help="Write the process ids to this file.")
    options = parser.parse_args(arguments)
    if options.fault == "start":
        sys.exit("ValueError: No available memory for the cache blocks")
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    if options.processes is not None:
        options.processes.write_text(f"{os.getpid()} {child.pid}")
    if options.fault == "hangs":
        print("Loading safetensors checkpoint shards", flush=True)
        signal.pause()
    Handler.options = options
    if options.fault is None:
        # This program's environment is not plw's: it has no PYTHONPATH.
        assert "PYTHONPATH" not in os.environ
        sys.path.insert(0, str(Path(__file__).parents[2]))
        Handler.complete = staticmethod(engine(options.model))
    ThreadingHTTPServer((options.host, options.port), Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
