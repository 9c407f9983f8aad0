"""A whole sweep by `plw sweep`: real Ray, DeepSpeed and MLflow, on a tiny model."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.plw import Workspace, edit_spec, kill_all, make_workspace, poll, rank_processes

pytestmark = pytest.mark.slow

PLWS = [0, 0.01, 0.242, 1]
SCORES = {
    "heldout_completion_loss",
    "heldout_prompt_loss",
    "heldout_completion_bits_per_byte",
    "heldout_prompt_bits_per_byte",
    "heldout_user_loss",
    "heldout_template_loss",
    "heldout.choice",
    "heldout.exact_match",
    "heldout.chrf",
}


@pytest.mark.smoke
class TestOwnModelAndData:
    """The demo's spec with model and data replaced."""

    @pytest.fixture(scope="class")
    def workspace(self, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
        workspace = make_workspace(tmp_path_factory.mktemp("own"))
        done = workspace.plw("sweep", "sweep.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        (workspace.folder / "output.txt").write_text(done.stdout)
        return workspace

    def test_every_trial_is_done_and_scored(self, workspace: Workspace) -> None:
        trials = workspace.trials()
        assert [t["settings"]["loss"]["prompt_loss_weight"] for t in trials] == PLWS
        assert [t["state"] for t in trials] == ["done"] * 4
        assert [t["attempts"] for t in trials] == [1] * 4
        for trial in trials:
            path = workspace.sweep / "trials" / trial["id"] / "scores.json"
            scores = json.loads(path.read_text())["scores"]
            assert {score["name"] for score in scores} == SCORES
            assert all(score["num_overlapping"] is not None for score in scores)

    def test_mlflow_has_a_parent_and_a_child_for_each_trial(self, workspace: Workspace) -> None:
        runs = workspace.runs()
        [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        children = [run for run in runs if run is not parent]
        assert len(children) == 4
        weights = {float(run.data.params["loss.prompt_loss_weight"]) for run in children}
        assert weights == set(PLWS)
        for run in children:
            assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
            assert run.info.status == "FINISHED"
            expected = {f"eval/{name}" for name in (*SCORES, "aggregate_relative")}
            assert run.data.metrics.keys() >= expected
            assert workspace.metric_steps(run.info.run_id, "train/completion_loss") == [
                *range(1, 19)
            ]
        assert parent.data.metrics.keys() >= {f"untuned/{name}" for name in SCORES}

    def test_the_report_shows_each_trial_and_caveats(self, workspace: Workspace) -> None:
        report = (workspace.sweep / "report.md").read_text()
        for trial in workspace.trials():
            assert trial["id"] in report
        assert "ingle seed" in report or "ingle-seed" in report
        page = (workspace.sweep / "report.html").read_text()
        assert page.count("data:image/svg+xml;base64,") >= 3
        assert 'src="http' not in page

    def test_the_terminal_shows_only_progress_and_next_commands(self, workspace: Workspace) -> None:
        output = (workspace.folder / "output.txt").read_text()
        assert "PLW 0.242  done" in output
        assert "plw ui runs/sweep" in output
        for chatter in ("WARNING", "FutureWarning", "DeepSpeed", "Loading weights", "(raylet"):
            assert chatter not in output

    def test_the_trained_model_loads_with_transformers(self, workspace: Workspace) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = workspace.sweep / "trials" / workspace.trials()[0]["id"] / "model"
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert model.config.vocab_size == len(tokenizer)
        assert tokenizer.chat_template is not None

    def test_a_second_run_skips_finished_trials(self, workspace: Workspace) -> None:
        before = {run.info.run_id for run in workspace.runs()}
        # Through the Python API, which runs `plw sweep` with a copy of the spec.
        code = (
            "from orchestrator import load_spec, run_sweep\n"
            "print(run_sweep(load_spec('sweep.yaml')))"
        )
        again = subprocess.run(
            [sys.executable, "-c", code],
            cwd=workspace.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert again.returncode == 0, again.stderr
        assert "4 trials were done before and were skipped." in again.stdout
        assert again.stdout.endswith("<Sweep sweep: done, 4/4 trials>\n")
        assert {run.info.run_id for run in workspace.runs()} == before

    def test_status_and_report_print_json(self, workspace: Workspace) -> None:
        status = json.loads(workspace.plw("status", "runs/sweep", "--json").stdout)
        assert [row["state"] for row in status] == ["done"] * 4
        report = workspace.plw("report", "runs/sweep", "--json")
        assert isinstance(json.loads(report.stdout), dict)

    def test_plan_counts_finished_trials(self, workspace: Workspace) -> None:
        plan = json.loads(workspace.plw("plan", "sweep.yaml", "--json").stdout)
        assert plan["num_done"] == 4
        assert "measured on 4 finished trials" in plan["estimate_basis"]

    def test_eval_reproduces_the_scores_of_the_sweep(self, workspace: Workspace) -> None:
        trial_id = workspace.trials()[1]["id"]
        folder = workspace.sweep / "trials" / trial_id
        done = workspace.plw(
            *("eval", str(folder / "model"), "--config", "sweep.yaml", "-o", "again", "--json"),
        )
        assert done.returncode == 0, done.stderr
        again = {s["name"]: s["value"] for s in json.loads(done.stdout)["scores"]}
        first = json.loads((folder / "scores.json").read_text())["scores"]
        assert again == pytest.approx({s["name"]: s["value"] for s in first}, rel=1e-5)

    def test_an_added_value_runs_only_the_new_trial(self, workspace: Workspace) -> None:
        edit_spec(
            workspace, search={"space": {"loss.prompt_loss_weight": [0, 0.01, 0.1, 0.242, 1]}}
        )
        done = workspace.plw("sweep", "sweep.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "4 trials were done before and were skipped." in done.stdout
        assert len(workspace.trials()) == 5
        assert len(workspace.runs()) == 6


@pytest.fixture
def two_ranks(tmp_path: Path) -> Workspace:
    """Two trials of two ranks under ZeRO 2, long enough to be interrupted."""
    return make_workspace(
        tmp_path,
        resources={"workers_per_trial": 2, "cpus_per_worker": 1},
        deepspeed={"zero_stage": 2},
        schedule={"steps": 200},
        checkpoint={"every_steps": 30},
        search={"space": {"loss.prompt_loss_weight": [0, 0.1]}},
    )


def steps_of(workspace: Workspace, index: int) -> int:
    trials = workspace.trials()
    if len(trials) <= index:
        return 0
    path = workspace.sweep / "trials" / trials[index]["id"] / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.full  # test_kills.py kills a worker too, of a smaller sweep
def test_a_killed_rank_resumes_its_trial_from_the_checkpoint(two_ranks: Workspace) -> None:
    driver = two_ranks.start("sweep", "sweep.yaml")
    poll(lambda: steps_of(two_ranks, 0) > 70, "step 70 of the first trial")
    [*ranks] = rank_processes(driver)
    assert len(ranks) == 2
    ranks[-1].kill()
    output, _ = driver.communicate(timeout=900)
    assert driver.returncode == 0, output
    assert [t["state"] for t in two_ranks.trials()] == ["done", "done"]
    assert [t["attempts"] for t in two_ranks.trials()] == [2, 1]
    log = two_ranks.sweep / "trials" / two_ranks.trials()[0]["id"] / "log.txt"
    assert "resumed from step" in log.read_text()
    for run in two_ranks.runs():
        if "mlflow.parentRunId" in run.data.tags:
            assert two_ranks.metric_steps(run.info.run_id, "train/completion_loss") == [
                *range(1, 201)
            ]


@pytest.mark.full  # test_kills.py kills the driver too, of a smaller sweep
def test_a_killed_sweep_resumes(two_ranks: Workspace) -> None:
    driver = two_ranks.start("sweep", "sweep.yaml")
    poll(lambda: steps_of(two_ranks, 1) > 60, "step 60 of the second trial")
    kill_all(driver)
    first = two_ranks.sweep / "trials" / two_ranks.trials()[0]["id"] / "train.json"
    first_trained_at = first.stat().st_mtime
    again = two_ranks.plw("sweep", "sweep.yaml")
    assert again.returncode == 0, again.stdout + again.stderr
    assert first.stat().st_mtime == first_trained_at
    second_log = two_ranks.sweep / "trials" / two_ranks.trials()[1]["id"] / "log.txt"
    assert "resumed from step" in second_log.read_text()
    children = [r for r in two_ranks.runs() if "mlflow.parentRunId" in r.data.tags]
    assert len(children) == 2
    for run in children:
        assert two_ranks.metric_steps(run.info.run_id, "train/completion_loss") == [*range(1, 201)]


@pytest.mark.smoke
def test_a_diverging_trial_fails_and_the_others_finish(tmp_path: Path) -> None:
    workspace = make_workspace(
        tmp_path,
        # Overflows float32 after one step.
        search={"space": {"optimizer.weight_decay": [1e60, 0.0]}},
    )
    done = workspace.plw("sweep", "sweep.yaml")
    assert done.returncode == 3
    assert [t["state"] for t in workspace.trials()] == ["failed", "done"]
    assert "the loss of step 2 is nan" in workspace.trials()[0]["error"]
    assert "failed: " in done.stdout
    status = {
        float(run.data.params["optimizer.weight_decay"]): run.info.status
        for run in workspace.runs()
        if "mlflow.parentRunId" in run.data.tags
    }
    assert status == {1e60: "FAILED", 0.0: "FINISHED"}


@pytest.mark.parametrize(("signum", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_sweep_reports_it_and_resumes(
    tmp_path: Path, signum: signal.Signals, exit_code: int
) -> None:
    workspace = make_workspace(
        tmp_path,
        schedule={"steps": 3000},
        checkpoint={"every_steps": 20},
        search={"space": {"loss.prompt_loss_weight": [0.1]}},
    )
    driver = workspace.start("sweep", "sweep.yaml")
    poll(lambda: steps_of(workspace, 0) > 60, "step 60")
    if signum == signal.SIGINT:
        # Ctrl-C on a terminal reaches the whole process group.
        os.killpg(driver.pid, signum)
    else:
        driver.send_signal(signum)
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == exit_code, output
    assert "stopping; the same command resumes" in output
    assert workspace.trials()[0]["state"] == "interrupted"
    assert [run.info.status for run in workspace.runs()] == ["KILLED", "KILLED"]
    assert "interrupted: 1 trial is not finished" in output
    assert "Traceback" not in output
    last_step = steps_of(workspace, 0)
    driver = workspace.start("sweep", "sweep.yaml")
    log = workspace.sweep / "trials" / workspace.trials()[0]["id"] / "log.txt"
    # The interrupt wrote a checkpoint, so no step is lost.
    poll(lambda: f"resumed from step {last_step} of 3000" in log.read_text(), "the resumed trial")
    kill_all(driver)
