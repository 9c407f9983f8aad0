"""Import rules: the order of packages, no cycles, no heavy imports in `plw --help`."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
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
# The packages and top-level modules of each package; each may import those before it. This is the
# only place where the order is declared.
ORDER = {
    "trainers": (
        *("foundation", "config_base", "data_config", "deepspeed_config", "loss_config", "config"),
        *("demo", "models", "data", "engine"),
        *(
            "token_weights",
            "loss",
            "step",
            "heldout",
            "schedule",
            "runs",
            "run_setup",
            "model_export",
            "sft",
            "__main__",
        ),
    ),
    "evals": (
        *("config_base", "engine_config", "judge_config", "config", "engine", "results"),
        *("contamination", "harness", "heldout", "judge", "scoring_identity", "run"),
    ),
    "orchestrator": (
        *("foundation", "spec", "record", "statistics", "search", "plan"),
        *("analysis", "report", "tracking", "monitoring", "trials"),
        *("inspection", "export", "cluster", "serve", "api", "cli"),
    ),
}


def imported_by(*modules: str) -> set[str]:
    """Return the top-level names in sys.modules after importing `modules` in a fresh process."""
    code = f"import sys, {', '.join(modules)}; print(*{{m.split('.')[0] for m in sys.modules}})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def test_trainers_need_neither_ray_nor_the_other_packages() -> None:
    # Not mlflow, which DeepSpeed itself imports.
    loaded = imported_by("trainers.sft", "trainers.__main__", "trainers.data.length_stats")
    # A GPU machine has torch, transformers and peft; what else training needs is carried to it.
    assert loaded & {"ray", "orchestrator", "evals", "datasets", "lm_eval", "trl"} == set()
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
        *("record.folder", "report.pages", "tracking.sync", "cli.sweep_output"),
        *("monitoring.lookup", "monitoring.watch", "monitoring.logs", "monitoring.stop"),
    ],
)
def test_reading_a_sweep_needs_no_torch(module: str) -> None:
    loaded = imported_by(f"orchestrator.{module}")
    assert loaded & {"torch", "ray", "deepspeed", "mlflow"} == set()


def test_the_driver_of_a_trial_needs_no_torch() -> None:
    # A large cluster has hundreds of them on its head.
    loaded = imported_by("orchestrator.trials.trial_driver", "orchestrator.trials.ray_launch")
    assert loaded & {"torch", "transformers", "deepspeed", "datasets", "mlflow"} == set()


def modules() -> dict[str, Path]:
    """Return every module of the three packages, by its dotted name."""
    found = {}
    for top in ORDER:
        for path in sorted((ROOT / top).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported_modules(path: Path) -> set[str]:
    """Return the modules of this project that a file imports, also inside functions."""
    named: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from package import module` imports the module, `from module import name` the module.
            named |= (inside & MODULES.keys()) or {str(node.module)}
    return named & MODULES.keys()


def imports_of(top: str) -> Iterator[tuple[str, str, str]]:
    """Yield (module, its package, imported package) for imports between packages of `top`."""
    for name, path in MODULES.items():
        if not name.startswith(f"{top}."):
            continue
        here = name.split(".")[1]
        for imported in imported_modules(path):
            parts = imported.split(".")
            if parts[0] == top and len(parts) > 1 and parts[1] != here:
                yield name, here, parts[1]


@pytest.mark.parametrize("top", ORDER)
def test_packages_depend_on_each_other_one_way(top: str) -> None:
    there = {name.split(".")[1] for name in MODULES if name.startswith(f"{top}.")}
    assert there == set(ORDER[top])
    place = {name: index for index, name in enumerate(ORDER[top])}
    assert [one for one in imports_of(top) if place[one[1]] < place[one[2]]] == []


@pytest.mark.parametrize(
    ("top", "foreign"), [("trainers", {"evals", "orchestrator"}), ("evals", {"orchestrator"})]
)
def test_trainers_and_evals_import_nothing_that_is_built_on_them(
    top: str, foreign: set[str]
) -> None:
    assert [
        (name, imported)
        for name, path in MODULES.items()
        if name.split(".")[0] == top
        for imported in imported_modules(path)
        if imported.split(".")[0] in foreign
    ] == []


@pytest.mark.parametrize("top", ORDER)
def test_no_modules_import_each_other_in_a_circle(top: str) -> None:
    ours = {name for name in MODULES if name.split(".")[0] == top}
    graph = {name: imported_modules(MODULES[name]) & ours for name in ours}
    TopologicalSorter(graph).prepare()  # CycleError names the modules.


def test_each_package_has_a_docstring() -> None:
    packages = {name: path for name, path in MODULES.items() if path.name == "__init__.py"}
    assert {"trainers.foundation", "evals.judge", "orchestrator.foundation"} <= packages.keys()
    assert [
        name
        for name, path in packages.items()
        if not ast.get_docstring(ast.parse(path.read_text()))
    ] == []
