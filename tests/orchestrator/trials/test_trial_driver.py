"""Records that a trial driver writes; its ranks are fakes that do nothing."""

from pathlib import Path

import pytest

from orchestrator.record.folder import BaselineUsage, SweepFolder

# Ray takes seconds to import; no cluster is started.
pytestmark = pytest.mark.slow


def test_ranks_that_score_an_untuned_model_count_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.noop import NoopDriver
    from orchestrator.trials.ray_launch import RankSettings

    seconds = iter([100.0, 107.5])
    monkeypatch.setattr("orchestrator.trials.trial_driver.time.monotonic", lambda: next(seconds))
    driver = NoopDriver.__new__(NoopDriver)
    settings = RankSettings(
        root=str(tmp_path),
        evals={},
        num_workers=1,
        cpus_per_worker=1,
        gpus_per_worker=0,
        retries={},
    )
    untuned = {"settings": {}, "model_path": "m"}
    driver.setup({"kind": "base", "key": "b", "point": None, "untuned": untuned}, settings)
    assert driver.step() == {"done": True, "point": None}
    assert SweepFolder(tmp_path).read_baseline_usage("b") == BaselineUsage(busy_seconds=7.5)
