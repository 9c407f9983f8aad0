"""The fingerprint of stored examples equals that of examples in memory, and is computed once."""

import json
from pathlib import Path

import pytest

from orchestrator.plan import fingerprint
from orchestrator.plan.data_fingerprint import DataFingerprint, fingerprint_data
from trainers.data.tokenize import read_split
from trainers.data_config import DataConfig


def test_the_fingerprint_of_stored_examples_is_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLW_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "data.jsonl"
    records = [{"prompt": f"Q{i}", "completion": f"A{i}"} for i in range(5)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    split = read_split(DataConfig(path=str(path), heldout_examples=2))
    # A literal, because another fingerprint would give all trials other ids.
    expected = DataFingerprint(fingerprint="sha256:ef072e5847d2ac09", has_extras=False)
    assert fingerprint_data(list(split.train), list(split.heldout)) == expected
    assert fingerprint_data(split.train, split.heldout) == expected
    monkeypatch.setattr(fingerprint, "fingerprint_examples", None)
    assert fingerprint_data(split.train, split.heldout) == expected
