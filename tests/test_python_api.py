"""The Python API: its documentation and its example notebook run, and its data frames."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import orchestrator
from orchestrator import Sweep, build_spec, list_sweeps, load_spec, plan_sweep, run_sweep
from orchestrator.record.folder import SweepFolder
from orchestrator.record.lock import sweep_lock
from orchestrator.spec.init import PRESET_FOLDER, PRESETS
from tests.orchestrator.sweeps import UNTUNED, card, hill, trial, write_sweep
from tests.trainers.tiny_runs import settings
from trainers.foundation.errors import InputError

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
NOTEBOOK = ROOT / "examples" / "analysis.ipynb"


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    """Seven weights with three seeds in runs/demo of the current folder."""
    monkeypatch.chdir(tmp_path)
    trials, cards = hill()
    return write_sweep(tmp_path / "runs" / "demo", trials, cards, card(UNTUNED))


def run_blocks(*words: str) -> dict[str, Any]:
    """Execute the blocks of the page that contain one of the words, and return their names."""
    names: dict[str, Any] = {}
    chosen = [block for block in BLOCKS if any(word in block for word in words)]
    assert len(chosen) >= len(words)
    for block in chosen:
        exec(compile(block, "docs/python.md", "exec"), names)
    return names


@pytest.mark.usefixtures("demo")
def test_the_documented_results_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    run_blocks('Sweep("demo")', "pivot_table")
    output = capsys.readouterr().out
    assert "<Sweep demo: done, 21/21 trials> done\nOverall: best PLW 0.2" in output
    assert "\nbest 0.2" in output
    assert Path("scores.png").stat().st_size > 10_000


def test_the_documented_spec_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = settings(tmp_path) | {"search": {"space": {"loss.prompt_loss_weight": [0, 0.1]}}}
    with Path("sweep.yaml").open("w") as file:
        YAML().dump(spec, file)
    names = run_blocks("build_spec(")
    assert names["spec"].folder == tmp_path / "runs" / "mine"
    assert re.search(r"^9 \d+\.\d+$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.slow
def test_the_documented_fine_tune_and_its_scores(tmp_path: Path) -> None:
    settings(tmp_path)
    blocks = "\n".join(block for block in BLOCKS if "train(config" in block or "EvalCo" in block)
    done = subprocess.run(
        [sys.executable, "-c", blocks], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'heldout_completion_loss': " in done.stdout
    assert (tmp_path / "out" / "model" / "config.json").exists()


def test_every_method_is_documented() -> None:
    public = {name for name in vars(Sweep) if not name.startswith("_")}
    documented = set(re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE))
    assert public - documented == {"name", "folder", "state", "answer"}
    assert all(name in PAGE for name in orchestrator.__all__)


def test_the_notebook_runs(
    demo: SweepFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")
    folder = demo.root.parents[1] / "examples"
    folder.mkdir()
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    for cell in code:
        exec(compile(cell, NOTEBOOK.name, "exec"), names)
    assert "Overall: best PLW 0.2" in capsys.readouterr().out
    assert list(names["table"].columns) == [0, 1, 2]
    assert names["figures"]["scores"]._repr_png_().startswith(b"\x89PNG")


def test_data_frames_name_each_trial(demo: SweepFolder) -> None:
    sweep = Sweep()
    assert (sweep.name, sweep.folder) == ("demo", demo.root)
    trials = sweep.trials()
    assert len(trials) == 21
    assert set(trials["prompt_loss_weight"]) == {0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0}
    scores = sweep.scores()
    assert set(scores[scores.trial == "untuned"].measure) >= {"quiz.acc", "essays.chrf"}
    assert len(scores[scores.measure == "quiz.acc"]) == 22
    first = trials.trial[0]
    steps = [json.loads(line)["step"] for line in demo.metrics(first).read_text().splitlines()]
    assert list(sweep.metrics(first).step) == steps
    assert set(sweep.metrics().trial) == set(trials.trial)
    assert list(sweep.samples(first).measure) == ["heldout"]
    assert list(sweep.samples("untuned").value) == [2.0]
    assert len(sweep.status()) == 21
    assert list(list_sweeps()["answer"].str.startswith("PLW 0.2")) == [True]
    assert sweep.write_report() == demo.report_html


def test_data_frames_have_the_same_names_for_id_and_label(demo: SweepFolder) -> None:
    sweep = Sweep()
    first = demo.read_trials()[0].id
    for frame in (sweep.status(), sweep.trials(), sweep.scores(), sweep.metrics()):
        [label] = frame[frame.trial == first].label.unique()
        assert label == "PLW 0, seed 0"
        assert "id" not in frame.columns


@pytest.mark.usefixtures("demo")
def test_seeds_are_integers_also_where_the_untuned_model_has_none() -> None:
    sweep = Sweep()
    assert [str(frame.seed.dtype) for frame in (sweep.trials(), sweep.metrics())] == ["int64"] * 2
    seeds = sweep.scores().seed
    assert str(seeds.dtype) == "Int64"
    assert list(seeds.dropna().unique()) == [0, 1, 2]
    assert seeds.isna().sum() == len(sweep.scores().query("trial == 'untuned'")) > 0


def test_a_running_sweep_is_read_and_stopped(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", [trial(0.0), trial(1.0, state="training")], {})
    sweep = Sweep(tmp_path / "s")
    assert sweep.state == "interrupted"
    with sweep_lock(folder):
        assert repr(sweep) == "<Sweep s: running, 1/2 trials>"
        assert "stop requested for trial 10s0" in sweep.stop("10")
    assert sweep.log("00s0") == "loading the model\n"
    assert (
        sweep.answer
        == "No result yet: no trial has scores. Of 2 trials: 1 unfinished, 1 without scores."
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_a_spec_survives_the_file_that_run_sweep_writes(preset: str, tmp_path: Path) -> None:
    from orchestrator.api import _spec_text

    spec = load_spec(PRESET_FOLDER / f"{preset}.yaml")
    path = tmp_path / f"{preset}.yaml"
    path.write_text(_spec_text(spec))
    assert load_spec(path) == spec


def test_a_spec_with_a_password_is_not_written(tmp_path: Path) -> None:
    spec = build_spec(
        {
            **settings(tmp_path),
            "output_dir": str(tmp_path / "s"),
            "tracking": {"uri": "http://me:secret@host"},
            "search": {"space": {"loss.prompt_loss_weight": [0, 1]}},
        }
    )
    with pytest.raises(InputError, match="the spec has a password in a URI; set it in the env"):
        run_sweep(spec)
    assert not (tmp_path / "s").exists()


def test_bad_settings_are_listed() -> None:
    with pytest.raises(InputError, match=r"loss\.prompt_loss_weight: .* got 1\.5"):
        build_spec({"model": {"path": "m"}, "data": {"path": "d"},
                    "loss": {"prompt_loss_weight": 1.5},
                    "search": {"space": {"seed": [0, 1]}}})  # fmt: skip


def test_a_plan_has_the_trials(tmp_path: Path) -> None:
    spec = build_spec(
        settings(tmp_path)
        | {
            "output_dir": str(tmp_path / "s"),
            "search": {"space": {"loss.prompt_loss_weight": [0, 1]}},
        }
    )
    assert [one.searched for one in plan_sweep(spec).trials] == [
        {"loss.prompt_loss_weight": 0.0},
        {"loss.prompt_loss_weight": 1.0},
    ]


def test_importing_the_packages_is_light() -> None:
    code = (
        "import sys, orchestrator, trainers, evals; "
        "print({'torch', 'pandas', 'pydantic'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
