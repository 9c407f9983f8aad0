"""benchmarks.gpu on a CPU: the same code with tiny shapes, and only a GPU machine's packages.

What only a GPU shows is not tested here: kernels, memory of the device, speed.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.gpu.results import SectionResult, write_results
from benchmarks.gpu.runner import Runner
from benchmarks.gpu.sections import SECTIONS, Section

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / "benchmarks" / "gpu" / "wheels.txt"
# pip and setuptools come with Python and torch.
VENDORED = Path(setuptools.__file__).parent / "_vendor"
PRESENT = ("torch", "transformers", "peft", "pip", "setuptools")

# A sitecustomize.py: the import system finds none of these modules.
HIDE = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        is_hidden = name.partition(".")[0] in {absent}
        return None if is_hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""


def with_dependencies(names: tuple[str, ...]) -> Iterator[str]:
    """Yield the canonical names of installed distributions and of all that they need."""
    pending, seen = [canonicalize_name(name) for name in names], set[str]()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        yield name
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        parsed = (Requirement(text) for text in needed)
        pending += [
            canonicalize_name(one.name)
            for one in parsed
            if one.marker is None or one.marker.evaluate({"extra": ""})
        ]


def absent_modules() -> list[str]:
    """Return the modules of this environment that a GPU machine with the wheels lacks."""
    wheels = re.findall(r"^[\w.-]+", WHEELS.read_text(), flags=re.MULTILINE)
    present = {
        *with_dependencies(PRESENT),
        *(canonicalize_name(name) for name in (*wheels, "deepspeed")),
    }
    return sorted(
        module
        for module, distributions in metadata.packages_distributions().items()
        if module not in sys.stdlib_module_names
        and module not in {"trainers", "evals", "orchestrator", "benchmarks"}
        and not (VENDORED / module).exists()
        and not {canonicalize_name(name) for name in distributions} & present
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Run the command as on a GPU machine; return its results, with its exit code and Markdown."""
    folder = tmp_path_factory.mktemp("gpu")
    absent = absent_modules()
    assert {"ray", "mlflow", "lm_eval", "scipy", "pandas"} <= set(absent)
    (folder / "sitecustomize.py").write_text(HIDE.format(absent=absent))
    # One thread: tiny shapes need no more.
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--small", "--out", folder],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    log = (folder / "log.txt").read_text() if (folder / "log.txt").exists() else done.stderr
    assert done.returncode == 0, f"{done.stdout}\n{log[-5000:]}"
    content: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return {**content, "markdown": done.stdout}


@pytest.mark.slow
def test_every_section_runs_with_the_packages_of_a_gpu_machine(run: Mapping[str, Any]) -> None:
    assert run["machine"]["device"] == "cpu"
    assert [section["name"] for section in run["sections"]] == list(SECTIONS)
    assert [section["error"] for section in run["sections"]] == [None] * len(SECTIONS)
    [trl] = next(section["rows"] for section in run["sections"] if section["name"] == "trl")
    assert trl == {"skipped": "not installed: pandas"}
    assert "| 3 | bfloat16 | lora |" in run["markdown"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "num_targets"), [("gradients", 18), ("resume", 1), ("export", 3)])
def test_checks_are_made_and_pass(run: Mapping[str, Any], name: str, num_targets: int) -> None:
    rows = next(section["rows"] for section in run["sections"] if section["name"] == name)
    assert [row["passed"] for row in rows] == [True] * num_targets


def faulty(bench: Any) -> Iterator[dict[str, Any]]:
    """A section that fails after its first row."""
    yield {"row": 1}
    raise RuntimeError("as intended")


def deadly(bench: Any) -> Iterator[dict[str, Any]]:
    """A section whose process dies after its first row."""
    yield {"row": 1}
    os._exit(1)


def sound(bench: Any) -> Iterator[dict[str, Any]]:
    """A section without a fault."""
    yield {"passed": True}


def section(function: Any) -> Section:
    name = function.__name__
    return Section(name=name, title=name, module=__name__, function=name, limit_s=60)


@pytest.mark.slow
def test_a_failed_section_and_a_dead_process_do_not_stop_the_rest(tmp_path: Path) -> None:
    runner = Runner(tmp_path, "cpu", is_small=True)
    runner.run([section(function) for function in (faulty, deadly, sound)])
    assert [(one.name, one.error, one.rows) for one in runner.results] == [
        ("faulty", "RuntimeError: as intended", [{"row": 1}]),
        ("deadly", "the process died, or was killed after 1200 s; see log.txt", [{"row": 1}]),
        ("sound", None, [{"passed": True}]),
    ]
    assert [one.has_failed for one in runner.results] == [True, True, False]


@pytest.mark.slow
def test_a_machine_without_a_gpu_is_named_as_the_reason(tmp_path: Path) -> None:
    runner = Runner(tmp_path, "cuda", is_small=True)
    runner.run([section(sound)])
    [result] = runner.results
    assert result.error is not None
    assert result.error.startswith("no section could start: ")


def test_results_are_json_and_a_markdown_table(tmp_path: Path) -> None:
    rows = [{"limit": 1e-05, "passed": True}, {"limit": 1234.5, "note": "a|b", "passed": False}]
    result = SectionResult(name="gradients", title="Gradient", rows=rows, seconds=2.0)
    assert result.has_failed
    write_results(tmp_path, {"device": "cpu"}, [result])
    assert (tmp_path / "results.md").read_text().splitlines()[4:] == [
        "## Gradient",
        "",
        "1 of 2 targets met, 2 s.",
        "",
        "| limit | passed | note |",
        "| --- | --- | --- |",
        "| 1e-05 | yes |  |",
        "| 1,234 | NO | a\\|b |",
    ]
    assert json.loads((tmp_path / "results.json").read_text())["sections"][0]["rows"] == rows
