"""What each package may import, seen from a fresh process, and what `plw --help` must not."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "deepspeed", "ray", "mlflow", "datasets", "matplotlib", "scipy"}


def imported_by(*modules: str) -> set[str]:
    """The top-level names in sys.modules after importing `modules` in a fresh process."""
    code = f"import sys, {', '.join(modules)}; print(*{{m.split('.')[0] for m in sys.modules}})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def test_trainers_need_neither_ray_nor_the_other_packages() -> None:
    # DeepSpeed imports mlflow by itself, so that one cannot be told from here.
    loaded = imported_by("trainers.sft", "trainers.__main__", "trainers.stats")
    assert loaded & {"ray", "orchestrator", "evals"} == set()
    assert {"torch", "deepspeed"} <= loaded


def test_evals_need_neither_deepspeed_nor_ray_nor_mlflow() -> None:
    loaded = imported_by("evals.run")
    assert loaded & {"ray", "mlflow", "deepspeed", "orchestrator"} == set()


@pytest.mark.parametrize("module", ["orchestrator.cli", "trainers.results", "evals.scores"])
def test_the_command_line_starts_without_heavy_imports(module: str) -> None:
    assert imported_by(module) & HEAVY == set()


@pytest.mark.parametrize(
    "module", ["record", "report", "screen", "lookup", "watch", "logs", "stop", "sync"]
)
def test_reading_a_sweep_needs_no_torch(module: str) -> None:
    loaded = imported_by(f"orchestrator.{module}")
    assert loaded & {"torch", "ray", "deepspeed", "mlflow"} == set()
