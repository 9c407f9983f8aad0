"""Records that a trial driver writes; its ranks are fakes that do nothing."""

from pathlib import Path

import pytest

from orchestrator.record.folder import BaselineUsage, SweepFolder

# Ray takes seconds to import; no cluster is started.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("on_scorer", "usage"),
    [
        (False, BaselineUsage(busy_seconds=7.5)),
        (True, BaselineUsage(scorer_seconds=7.5)),
    ],
)
def test_workers_that_score_an_untuned_model_count_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_scorer: bool, usage: BaselineUsage
) -> None:
    from benchmarks.noop import NoopDriver
    from orchestrator.trials.workers import WorkerSettings

    seconds = iter([100.0, 107.5])
    monkeypatch.setattr("orchestrator.trials.trial_driver.time.monotonic", lambda: next(seconds))
    driver = NoopDriver.__new__(NoopDriver)
    settings = WorkerSettings(
        root=str(tmp_path),
        evals={},
        num_workers=1,
        cpus_per_worker=1,
        gpus_per_worker=0,
        cpus_per_scorer=1,
        gpus_per_scorer=0,
        retries={},
    )
    untuned = {"settings": {}, "model_path": "m", "opponent": None}
    job = {"kind": "base", "key": "b", "point": None, "untuned": untuned, "on_scorer": on_scorer}
    driver.setup(job, settings)
    assert driver.step() == {"done": True, "point": None}
    assert SweepFolder(tmp_path).read_baseline_usage("b") == usage
