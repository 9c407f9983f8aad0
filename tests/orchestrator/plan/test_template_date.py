"""Templates that show the date of today show the day on which the sweep began."""

from datetime import UTC, datetime, tzinfo
from pathlib import Path

import pytest

from orchestrator.foundation import clock
from orchestrator.plan.sweep_plan import PreparedSweep, make_plan
from orchestrator.spec.sweep_spec import load_spec
from orchestrator.trials.sweep import prepare_folder
from tests.orchestrator.plan.test_plan import write_spec

DATED = "{{ strftime_now('%d %B %Y') }} Q: {{ prompt }}\nA:"


def set_clock(monkeypatch: pytest.MonkeyPatch, day: int) -> None:
    class Fixed(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Fixed":
            return cls(2026, 11, day, 23, 59, tzinfo=UTC)

    monkeypatch.setattr(clock, "datetime", Fixed)


def plan(spec: Path) -> PreparedSweep:
    return make_plan(load_spec(spec))


def ids(prepared: PreparedSweep) -> list[str]:
    return [trial.id for trial in prepared.plan.trials]


def test_a_sweep_keeps_the_date_of_its_first_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_spec(tmp_path)
    (tmp_path / "prompt.jinja").write_text(DATED)
    set_clock(monkeypatch, 28)
    first = plan(path)
    assert first.plan.trials[0].settings["data"]["template_args"] == {"date": "2026-11-28"}
    assert first.plan.bases[0].template_args == {"date": "2026-11-28"}
    set_clock(monkeypatch, 29)
    assert ids(plan(path)) != ids(first)
    prepare_folder(load_spec(path), first, path)
    assert ids(plan(path)) == ids(first)


def test_the_date_is_that_of_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_spec(tmp_path)
    (tmp_path / "prompt.jinja").write_text(DATED)
    spec = path.read_text().replace(
        "max_length: 64", "max_length: 64\n  template_args: {date: 2026-01-31}"
    )
    path.write_text(spec)
    plans = []
    for day in (28, 29):
        set_clock(monkeypatch, day)
        plans.append(plan(path))
    assert ids(plans[0]) == ids(plans[1])
    assert plans[0].plan.trials[0].settings["data"]["template_args"] == {"date": "2026-01-31"}


def test_other_templates_have_no_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_spec(tmp_path)
    plans = []
    for day in (28, 29):
        set_clock(monkeypatch, day)
        plans.append(plan(path))
    assert ids(plans[0]) == ids(plans[1])
    assert plans[0].plan.trials[0].settings["data"]["template_args"] == {}
