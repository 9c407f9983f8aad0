"""A `plw serve` process with a tiny model, which tests can kill and start again."""

import json
import os
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
from ruamel.yaml import YAML
from safetensors.numpy import load_file

from tests.e2e.plw import MARK, Workspace, poll
from tests.orchestrator.serve.api import SETTINGS, chat_lines, jsonl
from tests.tiny_model import save_tiny_model

FINAL = ("succeeded", "failed", "cancelled")


class Serve:
    """A folder with a tiny model, a configuration and a server.

    Args:
        config: sections of the configuration beside `models`.
    """

    def __init__(self, folder: Path, **config: Any) -> None:
        self.workspace = Workspace(folder)
        self.folder = folder
        save_tiny_model(folder / "model")
        content = {
            "models": {"tiny": {"path": "./model", "settings": SETTINGS}},
            "jobs": {"niceness": 0},
            **config,
        }
        with (folder / "serve.yaml").open("w") as file:
            YAML(typ="safe").dump(content, file)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = self.new_client(max_retries=0)

    def new_client(self, *, max_retries: int) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key="none", max_retries=max_retries, timeout=120
        )

    @property
    def arguments(self) -> list[str]:
        return ["serve", "--config", "serve.yaml", "--data", "data", "--port", str(self.port)]

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def start(self) -> None:
        """Start the server and return once it answers."""
        self.launch()
        poll(self.answers, "the server")

    def launch(self) -> None:
        """Start the server in a new process group."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.workspace.command(*self.arguments),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, MARK: str(self.folder)},
            )

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def answers(self) -> bool:
        assert self.is_running(), self.log.read_text()
        try:
            self.client.models.list()
        except openai.APIConnectionError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL the server only; its job goes on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def kill_job(self, job_id: str) -> None:
        """SIGKILL the process of a job, unless it has just ended."""
        with suppress(ProcessLookupError):
            os.kill(int((self.job_folder(job_id) / "process.lock").read_text()), signal.SIGKILL)

    def job_folder(self, job_id: str) -> Path:
        return self.folder / "data" / "jobs" / job_id

    def metrics(self, job_id: str) -> list[dict[str, Any]]:
        """Return the complete lines of the metrics of a job."""
        path = self.job_folder(job_id) / "out" / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def steps(self, job_id: str) -> list[int]:
        """Return the steps in the metrics of a job."""
        return [row["step"] for row in self.metrics(job_id)]

    def wait(self, job_id: str, timeout_s: float = 400) -> Any:
        """Return the job once it has ended."""
        jobs = self.client.fine_tuning.jobs
        poll(lambda: jobs.retrieve(job_id).status in FINAL, f"the end of {job_id}", timeout_s)
        return jobs.retrieve(job_id)

    def messages(self, job_id: str) -> list[str]:
        """Return the messages of a job's events, the newest first."""
        return [one.message for one in self.client.fine_tuning.jobs.list_events(job_id, limit=1000)]

    def upload(self, count: int = 40) -> str:
        """Upload `count` examples and return the file's id."""
        return self.upload_lines(chat_lines(count))

    def upload_lines(self, lines: list[str]) -> str:
        """Upload a file with these lines and return its id."""
        return self.client.files.create(file=jsonl(lines), purpose="fine-tune").id

    def train_alone(self, settings: dict[str, Any], training: str, out: str) -> Path:
        """Run `plw train` with the settings that a job reports; return the model's folder."""
        assert (settings["model"]["path"], settings["data"]["path"]) == ("tiny", training)
        (self.folder / "mine.jsonl").write_bytes(self.client.files.content(training).read())
        config = {
            **settings,
            "model": {**settings["model"], "path": "model"},
            "data": {**settings["data"], "path": "mine.jsonl"},
        }
        (self.folder / f"{out}.yaml").write_text(json.dumps(config))
        done = self.workspace.plw("train", f"{out}.yaml", "-o", out)
        assert done.returncode == 0, done.stderr
        return self.folder / out / "model"

    def close(self) -> None:
        if self.process is not None and self.is_running():
            self.process.terminate()
            self.process.wait()


def assert_same_weights(ours: Path, theirs: Path) -> None:
    """Assert that two model folders have bitwise the same tensors under the same names."""
    first, second = (load_file(folder / "model.safetensors") for folder in (ours, theirs))
    assert first.keys() == second.keys()
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
