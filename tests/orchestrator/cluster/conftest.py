"""Fixtures for the tests of orchestrator.cluster."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide this machine's token, which would enable Ray's authentication for later tests."""
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
