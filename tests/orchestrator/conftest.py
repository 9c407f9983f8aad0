"""Fixtures of a finished sweep and of MLflow stores."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.record.folder import SweepFolder
from tests.orchestrator.sweeps import write_demo

OPEN_AND_FINISH = """
import sys
from pathlib import Path
from orchestrator.record.folder import SweepFolder
from orchestrator.tracking.tracker import Tracker
tracker = Tracker.open(SweepFolder(Path(sys.argv[1])), uri=sys.argv[2], experiment="first")
assert tracker.finish("FINISHED")
"""


@dataclass(frozen=True, kw_only=True)
class NewStore:
    """An MLflow database after the first sweep, and the output of creating it."""

    path: Path
    stdout: str
    stderr: str


@pytest.fixture
def demo_sweep(tmp_path: Path) -> SweepFolder:
    """Return a finished sweep: PLW 0, 0.01, 0.1 and 1, one seed, overlapping intervals."""
    return write_demo(tmp_path / "runs" / "demo")


@pytest.fixture(scope="session")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> NewStore:
    """Create the store once, in a separate process: creating MLflow's tables takes 5 s."""
    root = tmp_path_factory.mktemp("mlflow")
    folder = write_demo(root / "demo")
    path = root / "mlflow.db"
    done = subprocess.run(
        [sys.executable, "-c", OPEN_AND_FINISH, str(folder.root), f"sqlite:///{path}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return NewStore(path=path, stdout=done.stdout, stderr=done.stderr)


@pytest.fixture
def store_uri(new_store: NewStore, tmp_path: Path) -> str:
    """Return the URI of a new store for this test, with all tables."""
    path = tmp_path / "store" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy(new_store.path, path)
    return f"sqlite:///{path}"
