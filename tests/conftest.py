"""Settings of all tests: sleeping OpenMP threads, offline hub, temporary cache, Ctrl-C, logging."""

import logging
import os
import signal
from collections.abc import Iterator

import pytest

# Before any import of torch. orchestrator/cli/main.py has the measured cost of spinning threads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# `plw` sets it too, but after some tests have imported transformers.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("RAY_ADDRESS", None)
# A shell's background job ignores SIGINT, and its child processes would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def temporary_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep files of tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLW_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Undo a test's logging set-up, which ranks and scorers do at their start."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
