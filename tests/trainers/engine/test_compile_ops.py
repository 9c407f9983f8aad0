"""Building DeepSpeed's CPU operation."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.cpp_extension import _get_build_directory

from trainers.engine.zero import load_cpu_op


@pytest.mark.slow
def test_a_lock_of_a_killed_build_does_not_block(tmp_path: Path) -> None:
    assert load_cpu_op()
    built = Path(_get_build_directory("deepspeed_shm_comm", verbose=False))
    folder = tmp_path / built.name
    shutil.copytree(built, folder, ignore=shutil.ignore_patterns("*lock"))
    (folder / "lock").touch()
    done = subprocess.run(
        [sys.executable, "-m", "trainers.engine.compile_ops"],
        env={**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "CPU operation loads" in done.stdout
    assert not (folder / "lock").exists()
