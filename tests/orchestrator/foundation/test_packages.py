"""A foreign package with one of our names is detected before it is imported."""

import os
import subprocess
import sys
from pathlib import Path

PLW = Path(sys.executable).with_name("plw")


def test_a_foreign_package_of_our_name_is_refused_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "__init__.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [PLW, "status", "runs/none"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: the three packages of plw-sweep must come from one")
    assert f"evals from {tmp_path}" in done.stderr
    assert "Traceback" not in done.stderr
