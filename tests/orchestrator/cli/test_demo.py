"""`plw demo`: it writes the spec, prepares the machine and runs the sweep of that spec."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from orchestrator.cli import machine_checks, sweep
from orchestrator.cli.main import main
from tests.orchestrator.plw import plw, refused
from trainers.demo import model

ROOT = Path(__file__).parents[3]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replace compilation, download and sweep; return the specs of the sweeps that are run."""
    monkeypatch.chdir(tmp_path)
    compiled = machine_checks.Finding("DeepSpeed", "ok", "0.19.8; CPU operation loads (57 s)")
    monkeypatch.setattr(machine_checks, "check_deepspeed_op", lambda: compiled)
    monkeypatch.setattr(model, "demo_model_path", lambda: Path("/models/smollm2"))
    started: list[Any] = []

    def run(spec: Any, spec_path: Path, *arguments: Any, as_json: bool) -> None:
        started.append(spec)
        click.echo("{}" if as_json else f"sweep of {spec_path}")
        raise SystemExit(0)

    monkeypatch.setattr(sweep, "_run", run)
    return started


def test_demo_writes_its_spec_and_prints_a_line_for_each_step(runs: list[Any]) -> None:
    output = plw("demo").output
    assert output.splitlines() == [
        "wrote demo.yaml",
        "DeepSpeed: compiling its CPU operation, about a minute the first time ... "
        "0.19.8; CPU operation loads (57 s)",
        "model: downloading and converting SmolLM2-135M-Instruct, a minute the first time ... "
        "/models/smollm2",
        "sweep of demo.yaml",
        "  plw sweep demo.yaml --set 'search.seeds=[0, 1, 2, 3, 4, 5]'  add three seeds",
        "  plw init my.yaml                                             your own model and data",
    ]
    assert Path("demo.yaml").read_text() == (ROOT / "examples" / "demo.yaml").read_text()


def test_demo_runs_the_spec_of_make_demo(runs: list[Any]) -> None:
    plw("demo")
    plw("demo", "-o", "elsewhere/demo", "--json")
    plw("demo", str(ROOT / "examples" / "demo.yaml"))
    assert [spec.name for spec in runs] == ["demo"] * 3
    folders = [str(spec.folder.relative_to(Path.cwd())) for spec in runs]
    assert folders == ["runs/demo", "elsewhere/demo", "runs/demo"]
    assert runs[0] == runs[2]


def test_output_folder_is_part_of_the_next_command(runs: list[Any]) -> None:
    assert "  plw sweep demo.yaml -o 'my demo' --set " in plw("demo", "-o", "my demo").output


def test_demo_with_json_prints_progress_on_stderr_only(runs: list[Any]) -> None:
    assert plw("demo", "--json").stdout == "{}\n"


def test_demo_accepts_the_spec_of_plw_init_and_rejects_an_edited_one(runs: list[Any]) -> None:
    plw("init", "demo.yaml")
    plw("demo")
    text = Path("demo.yaml").read_text()
    Path("demo.yaml").write_text(text.replace("steps: 18", "steps: 9"))
    assert refused("demo") == (
        "error: demo.yaml: the file is not the demo's spec; "
        "run it with plw sweep demo.yaml, or name another file"
    )
    assert len(runs) == 1


def test_a_missing_compiler_ends_the_demo_with_a_fix(
    runs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = machine_checks.Finding(
        "DeepSpeed", "error", "0.19.8; its CPU operation does not load: no g++", "install g++"
    )
    monkeypatch.setattr(machine_checks, "check_deepspeed_op", lambda: failed)
    output = refused("demo")
    assert output.endswith(
        "error: DeepSpeed 0.19.8; its CPU operation does not load: no g++; install g++"
    )
    assert runs == []


def test_a_failed_sweep_prints_no_next_command(
    runs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(sweep, "_run", fail)
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 3
    assert "add three seeds" not in result.output


def test_the_next_commands_are_printed_once_although_the_sweep_is_a_child_process(
    tmp_path: Path,
) -> None:
    code = """
import sys
from pathlib import Path
from orchestrator.cli import machine_checks, sweep
from orchestrator.cli.main import main
from trainers.demo import model

machine_checks.check_deepspeed_op = lambda: machine_checks.Finding("DeepSpeed", "ok", "loads")
model.demo_model_path = lambda: Path("/models/smollm2")
sweep._run = lambda *arguments, **options: sys.exit(0)
main(["demo"])
"""
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout.count("add three seeds") == 1
