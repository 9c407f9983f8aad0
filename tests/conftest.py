"""What holds for all tests: threads that sleep while they wait, no way out to a hub, a cache of
their own, Ctrl-C, and logging as it was before."""

import logging
import os
import signal
from collections.abc import Iterator

import pytest

# Before torch is imported anywhere: see orchestrator/cli/main.py for what spinning threads cost.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("RAY_ADDRESS", None)
# A shell's background job ignores Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """So that small files of tests never push out what a user works with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLW_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Processes of ranks and scorers set up logging; a test that does their work here does too."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
