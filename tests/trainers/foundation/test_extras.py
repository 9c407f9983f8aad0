"""A feature without its package: one error that names the extra."""

import importlib.metadata
import sys
from pathlib import Path

import pytest

from evals.config import BenchmarkConfig, EvalConfig, TaskConfig
from evals.harness.plan_check import check_tasks
from evals.harness.preflight import check_benchmarks
from evals.judge.local_server import serve_model
from orchestrator.cli.main import main
from tests.orchestrator.plw import refused
from trainers.foundation.errors import InputError
from trainers.foundation.extras import require_package

HIDDEN = ("lm_eval", "rouge_score", "openai", "bitsandbytes", "statsmodels")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the packages of the extras."""
    for module in HIDDEN:
        monkeypatch.setitem(sys.modules, module, None)
    find = importlib.metadata.Distribution.from_name

    def find_installed(name: str) -> importlib.metadata.Distribution:
        if name.replace("-", "_") in HIDDEN:
            raise importlib.metadata.PackageNotFoundError(name)
        return find(name)

    monkeypatch.setattr(importlib.metadata.Distribution, "from_name", find_installed)


def test_an_installed_package_is_no_error() -> None:
    require_package("torch", feature="training", extra="none")


@pytest.mark.parametrize("check", [check_benchmarks, check_tasks])
@pytest.mark.usefixtures("without")
def test_tasks_without_lm_eval_name_the_extra(check: object) -> None:
    assert callable(check)
    with pytest.raises(InputError) as caught:
        check(EvalConfig(tasks=[TaskConfig(name="arc_challenge")]))
    assert str(caught.value) == (
        "evals.tasks needs lm_eval, which is not installed; pip install 'plw-sweep[benchmarks]'"
    )


@pytest.mark.usefixtures("without")
def test_jsonl_benchmarks_without_lm_eval_name_the_extra() -> None:
    own = BenchmarkConfig(name="quiz", path="quiz.jsonl", kind="multiple_choice")
    with pytest.raises(InputError, match=r"^evals\.benchmarks needs lm_eval, .*\[benchmarks\]'$"):
        check_benchmarks(EvalConfig(benchmarks=[own]))


@pytest.mark.usefixtures("without")
def test_held_out_measures_need_no_extra() -> None:
    check_benchmarks(EvalConfig())
    check_tasks(EvalConfig())


@pytest.mark.usefixtures("without")
def test_a_local_judge_without_its_server_names_the_extra() -> None:
    with (
        pytest.raises(InputError, match=r"a local judge needs openai, .*'plw-sweep\[judge\]'$"),
        serve_model("some/judge", timeout_s=1),
    ):
        pass


@pytest.mark.usefixtures("without")
def test_plw_eval_without_lm_eval_exits_with_2(tmp_path: Path) -> None:
    assert main.commands["eval"]
    output = refused("eval", str(tmp_path), "--tasks", "arc_challenge", "-o", str(tmp_path / "o"))
    assert "pip install 'plw-sweep[benchmarks]'" in output
