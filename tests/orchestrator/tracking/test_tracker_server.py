"""Tests against a real `mlflow server` that stops during a sweep and restarts."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.record.folder import SweepFolder
from orchestrator.report.pages import write_report
from orchestrator.tracking.tracker import Tracker
from orchestrator.tracking.uri import responds
from tests.orchestrator.sweeps import DEMO, card, trial, write_card, write_metrics, write_sweep
from tests.orchestrator.tracking.test_uri import free_port

START_TIMEOUT_S = 120.0


class Server:
    """One `mlflow server` on one port, which can be stopped and started again."""

    def __init__(self, store_uri: str, root: Path, artifacts: str | None = None) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._command = [
            *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store_uri),
            *("--artifacts-destination", artifacts or str(root / "served"), "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(self.port)),
        ]
        self._log = root / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        assert self.wait_until(lambda: responds(self.uri, 1.0)), self._log.read_text()

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        """Return whether `condition` became true before the server ended or the timeout."""
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if condition():
                return True
            try:
                self._process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
            return False
        return False

    def stop(self) -> None:
        """Kill the server and its workers, which share its session."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(store_uri: str, tmp_path: Path) -> Iterator[Server]:
    server = Server(store_uri, tmp_path)
    server.start()
    yield server
    server.stop()


def steps(client: MlflowClient, run_id: str) -> list[int]:
    return sorted(point.step for point in client.get_metric_history(run_id, "train/loss"))


@pytest.mark.slow
def test_a_server_restart_loses_and_duplicates_nothing(
    tmp_path: Path, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    running = trial(0.1, state="training")
    folder = write_sweep(tmp_path / "s", [running], {}, card(DEMO[0.1]))
    uri = server.uri.replace("http://", "http://ann:secret@")
    tracker = Tracker.open(folder, uri=uri, experiment="plw")
    assert tracker.sync_trial(running.id)
    client = MlflowClient(server.uri)
    run_id = tracker.record.trial_run_ids[running.id]
    assert steps(client, run_id) == [1, 2, 3, 4]

    server.stop()
    write_metrics(folder, running.id, range(1, 7))
    start = time.monotonic()
    assert tracker.sync_trial(running.id) is False
    assert tracker.sync_trial(running.id) is False
    write_card(folder.trial(running.id), card(DEMO[0.1]))
    folder.write_trial(trial(0.1))
    assert tracker.finish("FINISHED") is False
    assert time.monotonic() - start < 10

    server.start()
    assert server.wait_until(lambda: tracker.sync_trial(running.id))
    assert steps(client, run_id) == [1, 2, 3, 4, 5, 6]
    finish_in_a_new_process(folder, uri)
    assert steps(client, run_id) == [1, 2, 3, 4, 5, 6]
    parent = client.get_run(tracker.record.parent_run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["untuned/quiz.acc"] == 0.77
    names = {entry.path for entry in client.list_artifacts(run_id)}
    assert names == {"samples.jsonl", "scores.json", "settings.yaml"}
    assert capfd.readouterr().out == ""


def finish_in_a_new_process(folder: SweepFolder, uri: str) -> None:
    write_report(folder)
    code = (
        "import sys; from pathlib import Path; from orchestrator.record.folder import SweepFolder;"
        "from orchestrator.tracking.tracker import Tracker;"
        "tracker = Tracker.open(SweepFolder(Path(sys.argv[1])), uri=sys.argv[2], experiment='plw');"
        "assert tracker.finish('FINISHED')"
    )
    command = [sys.executable, "-c", code, str(folder.root), uri]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
