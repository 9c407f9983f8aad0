"""The wheel: it holds every file of the packages, and its commands run outside of the checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from orchestrator import __version__
from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import write_data

ROOT = Path(__file__).parents[1]
PACKAGES = ("evals", "orchestrator", "trainers")
NOT_SOURCES = (".git", ".venv", "build", "dist", "runs", "plw_sweep.egg-info")
DATA_FILES = {
    "orchestrator/spec/presets/demo.yaml",
    "orchestrator/report/templates/report.html.j2",
    "orchestrator/report/templates/report.md.j2",
    "orchestrator/inspection/templates/tokens.html.j2",
    "orchestrator/serve/templates/jobs.html.j2",
    "orchestrator/export/templates/trl.py.j2",
    "trainers/data/chat_templates/chatml-tools.jinja",
    "trainers/data/chat_templates/deepseek-r1.jinja",
}

pytestmark = pytest.mark.slow


def build(source: Path, kind: str, output: Path) -> Path:
    """Build a distribution of `source` with the installed setuptools, without a network."""
    output.mkdir()
    code = f"import sys; from setuptools import build_meta as b; b.build_{kind}(sys.argv[1])"
    command = [sys.executable, "-c", code, str(output)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=300)
    [built] = output.iterdir()
    return built


def _not_sources(folder: str, names: list[str]) -> set[str]:
    is_root = Path(folder) == ROOT
    return {
        name
        for name in names
        if name == "__pycache__" or name.endswith("_cache") or (is_root and name in NOT_SOURCES)
    }


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, folder / "source", ignore=_not_sources)
    return build(folder / "source", "sdist", folder / "dist")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel that is built from the sdist, as `python -m build` does."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.unpack_archive(sdist, folder)
    [source] = folder.iterdir()
    return build(source, "wheel", folder / "dist")


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the installed wheel, without its dependencies."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(folder), str(wheel)], check=True, timeout=300)
    return folder


def run(site: Path, folder: Path, *arguments: str) -> str:
    """Run the wheel's `plw` in `folder`, and return its output."""
    found = subprocess.run(
        [sys.executable, str(site / "bin" / "plw"), *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_wheel_and_sdist_are_version_0_2_0(sdist: Path, wheel: Path) -> None:
    assert __version__ == "0.2.0"
    assert sdist.name == "plw_sweep-0.2.0.tar.gz"
    assert wheel.name == "plw_sweep-0.2.0-py3-none-any.whl"


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files >= DATA_FILES
    assert names == files


def test_the_sdist_holds_what_the_documentation_and_the_tests_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {
        *("CHANGELOG.md", "LICENSE", "Makefile", "README.md", "constraints.txt"),
        *("docs/method.md", "examples/demo.yaml", "examples/analysis.ipynb"),
        *("tests/conftest.py", "tests/test_package.py", "benchmarks/train.py"),
    }


def test_plw_of_the_wheel_runs_in_another_folder(site: Path, tmp_path: Path) -> None:
    assert run(site, tmp_path, "--version") == "plw, version 0.2.0\n"
    assert "\n  demo " in run(site, tmp_path, "--help")


def test_the_wheel_plans_the_demo_with_another_model(site: Path, tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model")
    write_data(tmp_path / "mine.jsonl", 200)
    run(site, tmp_path, "init", "demo.yaml")
    changes = ("model.path=./model", "data.path=mine.jsonl", "data.max_length=64")
    settings = [word for change in changes for word in ("--set", change)]
    planned = run(site, tmp_path, "plan", "demo.yaml", *settings)
    assert "sweep demo: 9 trials" in planned


def test_the_wheel_writes_a_report_from_its_templates(site: Path, tmp_path: Path) -> None:
    rows = ["benchmark,plw,seed,score"]
    rows += [
        f"quiz,{plw},{seed},{0.5 + plw / 10 + seed / 1000}" for plw in (0, 1) for seed in range(3)
    ]
    (tmp_path / "scores.csv").write_text("\n".join(rows) + "\n")
    run(site, tmp_path, "report", "--scores", "scores.csv", "--html", "answer.html")
    assert (tmp_path / "answer.html").read_text().startswith("<!doctype html>")
