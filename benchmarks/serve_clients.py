"""Many clients of `plw serve` at once: `python -m benchmarks.serve_clients`.

Starts a server on loopback with a tiny model, creates `--jobs` cancelled jobs and one that trains
with a niceness of 10, and lets `--clients` clients list, poll and upload once per second each for
`--seconds` while it trains. Prints errors, latencies and the server's memory.
"""

import argparse
import asyncio
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles

import httpx2
import psutil

_MIB = 2**20
_START_S = 120.0
_MEMORY_EVERY_S = 5.0
# The job that trains must outlast the clients: 50 epochs in batches of one.
_LONG_EXAMPLES = 2000
_CONFIG = """
models:
  tiny:
    path: ./model
    settings:
      data: {max_length: 64}
      batch: {global_batch_size: 8, micro_batch_size: 4}
      deepspeed: {zero_stage: 1, precision: float32}
limits: {requests_per_minute: 1000000}
"""


def main() -> None:
    """Run the benchmark in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_run(Path(folder), arguments.clients, arguments.seconds, arguments.jobs))


def training_file(num_examples: int = 40) -> bytes:
    """Return short chats."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Add {i} and {i + 1}."},
                {"role": "assistant", "content": str(2 * i + 1)},
            ]
        }
        for i in range(num_examples)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


async def _run(folder: Path, num_clients: int, seconds: int, num_jobs: int) -> None:
    # tests/ is not a package of the distribution; the benchmark runs in a checkout.
    from tests.tiny_model import save_tiny_model

    save_tiny_model(folder / "model")
    (folder / "serve.yaml").write_text(_CONFIG)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("plw")), "serve", "--config", "serve.yaml"]
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--data", "data", "--port", str(port)], cwd=folder, stdout=log, stderr=log
        )
    try:
        limits = httpx2.Limits(max_connections=num_clients)
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits, trust_env=False
        ) as http:
            await _wait(http)
            job_ids = await _create_jobs(http, num_jobs)
            await _time_listing(http, num_jobs)
            first_step = await _wait_for_step(http, job_ids[-1])
            memory = asyncio.create_task(_memory(psutil.Process(server.pid), seconds))
            clients = [_client(http, index, seconds, job_ids) for index in range(num_clients)]
            found = [one for part in await asyncio.gather(*clients) for one in part]
            _print(found, await memory)
            last_step = await _wait_for_step(http, job_ids[-1])
            print(f"the job trained {last_step - first_step:,} steps meanwhile")
            await http.post(f"/v1/fine_tuning/jobs/{job_ids[-1]}/cancel")
    finally:
        server.terminate()
        server.wait()


async def _wait(http: httpx2.AsyncClient) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            await http.get("/v1/models")
            return
        except httpx2.TransportError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


async def _wait_for_step(http: httpx2.AsyncClient, job_id: str) -> int:
    """Return the last step of a job that trains."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        job = (await http.get(f"/v1/fine_tuning/jobs/{job_id}")).json()
        assert job["status"] in ("queued", "running"), job["error"]
        events = (await http.get(f"/v1/fine_tuning/jobs/{job_id}/events?limit=1")).json()
        [event] = events["data"]
        if "step" in event["data"]:
            return int(event["data"]["step"])
        await asyncio.sleep(0.2)
    raise TimeoutError(f"{job_id} has no step after {_START_S:g} s")


async def _memory(server: psutil.Process, seconds: int) -> list[float]:
    """Return the server's memory in MiB, measured regularly for some time."""
    found = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found.append(server.memory_info().rss / _MIB)
        await asyncio.sleep(_MEMORY_EVERY_S)
    return found


async def _create_jobs(http: httpx2.AsyncClient, num_jobs: int) -> list[str]:
    """Create jobs that are cancelled at once, and one that runs; return their ids."""
    uploaded = await http.post(
        "/v1/files", files={"file": ("a.jsonl", training_file())}, data={"purpose": "fine-tune"}
    )
    body = {"model": "tiny", "training_file": uploaded.json()["id"]}
    found = []
    for _ in range(num_jobs):
        job = (await http.post("/v1/fine_tuning/jobs", json=body)).json()
        await http.post(f"/v1/fine_tuning/jobs/{job['id']}/cancel")
        found.append(job["id"])
    uploaded = await http.post(
        "/v1/files",
        files={"file": ("long.jsonl", training_file(_LONG_EXAMPLES))},
        data={"purpose": "fine-tune"},
    )
    long = {
        "model": "tiny",
        "training_file": uploaded.json()["id"],
        "hyperparameters": {"n_epochs": 50, "batch_size": 1},
    }
    found.append((await http.post("/v1/fine_tuning/jobs", json=long)).json()["id"])
    return found


async def _time_listing(http: httpx2.AsyncClient, num_jobs: int) -> None:
    for limit in (20, 100):
        times = []
        for _ in range(10):
            started = time.monotonic()
            (await http.get(f"/v1/fine_tuning/jobs?limit={limit}")).raise_for_status()
            times.append(time.monotonic() - started)
        print(f"{num_jobs:,} jobs: a page of {limit} takes {1000 * max(times):.0f} ms at most")


async def _client(
    http: httpx2.AsyncClient, index: int, seconds: int, job_ids: Sequence[str]
) -> list[tuple[str, float, int]]:
    """Send one request per second; return kind, latency in seconds and status of each."""
    choose = random.Random(index)
    upload = training_file()
    await asyncio.sleep(choose.random())
    found = []
    for _ in range(seconds):
        kind = choose.choice(("list", "status", "upload"))
        started = time.monotonic()
        try:
            if kind == "list":
                answer = await http.get("/v1/fine_tuning/jobs")
            elif kind == "status":
                answer = await http.get(f"/v1/fine_tuning/jobs/{choose.choice(job_ids)}")
            else:
                answer = await http.post(
                    "/v1/files",
                    files={"file": ("a.jsonl", upload)},
                    data={"purpose": "fine-tune"},
                )
            status = answer.status_code
        except httpx2.TransportError:
            status = 0
        spent = time.monotonic() - started
        found.append((kind, spent, status))
        await asyncio.sleep(max(0.0, 1 - spent))
    return found


def _print(found: Sequence[tuple[str, float, int]], memory: Sequence[float]) -> None:
    errors = sum(status != 200 for _, _, status in found)
    print(f"{len(found):,} requests, {errors} errors")
    for kind in ("status", "list", "upload"):
        spent = sorted(seconds for one, seconds, _ in found if one == kind)
        cuts = quantiles(spent, n=100)
        print(
            f"{kind:7} median {1000 * cuts[49]:.0f} ms, p99 {1000 * cuts[98]:.0f} ms,"
            f" longest {1000 * spent[-1]:.0f} ms"
        )
    shown = " ".join(f"{one:.0f}" for one in memory)
    print(f"memory of the server in MiB, every {_MEMORY_EVERY_S:g} s: {shown}")


if __name__ == "__main__":
    main()
