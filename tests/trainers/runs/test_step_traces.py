"""profile_steps: traces of single steps in the run's folder."""

import gzip
import json
from pathlib import Path

import pytest

from tests.trainers.tiny_runs import settings, train_until
from tests.worlds import run_in_world
from trainers.foundation.errors import InputError


def trace_two_steps(folder: Path) -> None:
    train_until(settings(folder, profile_steps=[2, 3]), folder / "run")
    with pytest.raises(InputError, match=r"profile_steps must be at most 6, .* got \[6, 7\]"):
        train_until(settings(folder, profile_steps=[6, 7]), folder / "late")


def test_each_step_of_the_range_is_traced(tmp_path: Path) -> None:
    run_in_world(1, trace_two_steps, tmp_path)
    files = sorted(path.name for path in (tmp_path / "run" / "profile").iterdir())
    assert files == [
        "step-2-rank-0.json.gz",
        "step-2-rank-0.txt",
        "step-3-rank-0.json.gz",
        "step-3-rank-0.txt",
    ]
    with gzip.open(tmp_path / "run" / "profile" / "step-2-rank-0.json.gz") as file:
        events = json.load(file)["traceEvents"]
    assert any(event.get("name") == "aten::scaled_dot_product_attention" for event in events)
    assert "aten::mm" in (tmp_path / "run" / "profile" / "step-3-rank-0.txt").read_text()
