"""What each package may import, seen from a fresh process, and what `plw --help` must not."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HEAVY = {
    "torch",
    "transformers",
    "deepspeed",
    "ray",
    "mlflow",
    "datasets",
    "matplotlib",
    "scipy",
    "statsmodels",
    "pandas",
}
ROOT = Path(__file__).parents[1]
# Each may import those before it; the modules beside the packages come first.
ORDER = (
    *("spec", "record", "statistics", "search", "plan"),
    *("analysis", "report", "tracking", "watching", "trials"),
    *("data", "final", "cluster", "cli"),
)


def imported_by(*modules: str) -> set[str]:
    """The top-level names in sys.modules after importing `modules` in a fresh process."""
    code = f"import sys, {', '.join(modules)}; print(*{{m.split('.')[0] for m in sys.modules}})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def test_trainers_need_neither_ray_nor_the_other_packages() -> None:
    # DeepSpeed imports mlflow by itself, so that one cannot be told from here.
    loaded = imported_by("trainers.sft", "trainers.__main__", "trainers.data.length_stats")
    assert loaded & {"ray", "orchestrator", "evals"} == set()
    assert {"torch", "deepspeed"} <= loaded


def test_evals_need_neither_deepspeed_nor_ray_nor_mlflow() -> None:
    loaded = imported_by("evals.run")
    assert loaded & {"ray", "mlflow", "deepspeed", "orchestrator"} == set()


@pytest.mark.parametrize(
    "module", ["orchestrator.cli.main", "trainers.runs.results", "evals.results.scores"]
)
def test_the_command_line_starts_without_heavy_imports(module: str) -> None:
    assert imported_by(module) & HEAVY == set()


@pytest.mark.parametrize(
    "module",
    [
        *("record.folder", "report.pages", "tracking.sync", "cli.screen"),
        *("watching.lookup", "watching.watch", "watching.logs", "watching.stop"),
    ],
)
def test_reading_a_sweep_needs_no_torch(module: str) -> None:
    loaded = imported_by(f"orchestrator.{module}")
    assert loaded & {"torch", "ray", "deepspeed", "mlflow"} == set()


def imports_between_packages() -> Iterator[tuple[str, str, str]]:
    """(file, package, imported package) of the orchestrator, "" for modules beside packages."""
    root = ROOT / "orchestrator"
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("orchestrator."):
                imported = str(node.module).split(".")[1]
                is_package = (root / imported).is_dir()
                here = path.relative_to(root).parent.name
                yield str(path.relative_to(ROOT)), here, imported if is_package else ""


def test_the_orchestrators_packages_depend_on_each_other_one_way() -> None:
    found = list(imports_between_packages())
    assert {package for _, package, _ in found} | {""} == {"", *ORDER}
    place = {name: index for index, name in enumerate(("", *ORDER))}
    assert [one for one in found if place[one[1]] < place[one[2]]] == []
