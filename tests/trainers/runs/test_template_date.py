"""A run keeps the date that its template shows: on all ranks, after a resume, and for scoring."""

import json
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from tests.trainers.tiny_runs import settings, train_until
from tests.worlds import run_in_world
from trainers.data import template_source
from trainers.models.prompt_format import read_prompt_format

DATED = "{{ strftime_now('%d %B %Y') }} Q: {{ prompt }}\nA:"


def set_clock(day: int) -> None:
    class Fixed(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Fixed":
            return cls(2026, 11, day, 23, 59, tzinfo=UTC)

    template_source.datetime = Fixed  # type: ignore[attr-defined]


def dated_settings(folder: Path) -> dict[str, Any]:
    config = settings(folder)
    file = folder / "dated.jinja"
    file.write_text(DATED)
    return {**config, "data": {**config["data"], "template": str(file)}}


def train_past_midnight(folder: Path) -> None:
    """Crash after step 4 and resume on the next day; the clock of rank 1 is a day ahead."""
    config, output_dir = dated_settings(folder), folder / "run"
    set_clock(28 + dist.get_rank() if dist.is_initialized() else 28)
    train_until(config, output_dir, crash_after=4)
    set_clock(29)
    train_until(config, output_dir)


@pytest.mark.parametrize("num_ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_keeps_the_date_of_its_start(
    num_ranks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        template_source, "datetime", datetime
    )  # Restores the clock of this process.
    dated_settings(tmp_path)
    run_in_world(num_ranks, train_past_midnight, tmp_path)
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())
    assert recorded["data"]["template_args"] == {"date": "2026-11-28"}
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == [1, 2, 3, 4, 5, 6]
    found = read_prompt_format(str(tmp_path / "run" / "model"))
    assert found is not None
    assert found.template_args == {"date": "2026-11-28"}
    # A finished run stays finished on later days.
    set_clock(30)
    train_until(dated_settings(tmp_path), tmp_path / "run")
