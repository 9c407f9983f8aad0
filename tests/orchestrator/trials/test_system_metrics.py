"""System metrics of a trial's node, from the real counters of this machine."""

import json
import time
from pathlib import Path

import pytest

from orchestrator.trials import system_metrics
from orchestrator.trials.system_metrics import record_system_metrics


def test_sample_numbers_continue_and_names_are_mlflows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_metrics, "SAMPLE_EVERY_S", 0.05)
    path = tmp_path / "system.jsonl"
    deadline = time.monotonic() + 60
    with record_system_metrics(path):
        while not path.exists():
            assert time.monotonic() < deadline
    with record_system_metrics(path):
        pass
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(len(lines)))
    assert len(lines) >= 3
    for line in lines:
        assert 0 <= line["system/cpu_utilization_percentage"] <= 100
        assert 0 < line["system/system_memory_usage_percentage"] < 100
        assert line["system/disk_available_megabytes"] > 0
        assert abs(line["time"] - time.time()) < 600


def test_failed_samples_are_logged_and_the_block_continues(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with record_system_metrics(tmp_path / "missing" / "system.jsonl"):
        done = True
    assert done
    assert "system metrics were not sampled" in caplog.text
