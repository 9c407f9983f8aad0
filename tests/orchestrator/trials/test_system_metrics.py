"""What a trial's node did, from this machine's real counters."""

import json
import time
from pathlib import Path

import pytest

from orchestrator.trials import system_metrics
from orchestrator.trials.system_metrics import system_metrics_in


def test_samples_are_numbered_on_and_have_mlflow_s_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_metrics, "SAMPLE_EVERY_S", 0.05)
    path = tmp_path / "system.jsonl"
    deadline = time.monotonic() + 60
    with system_metrics_in(path):
        while not path.exists():
            assert time.monotonic() < deadline
    with system_metrics_in(path):
        pass
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(len(lines)))
    assert len(lines) >= 3
    for line in lines:
        assert 0 <= line["system/cpu_utilization_percentage"] <= 100
        assert 0 < line["system/system_memory_usage_percentage"] < 100
        assert line["system/disk_available_megabytes"] > 0
        assert abs(line["time"] - time.time()) < 600


def test_samples_that_cannot_be_written_are_logged_and_the_work_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with system_metrics_in(tmp_path / "missing" / "system.jsonl"):
        done = True
    assert done
    assert "system metrics were not sampled" in caplog.text
