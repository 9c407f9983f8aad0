"""A sweep as a person runs it: real Ray, DeepSpeed and MLflow, on a model of their own."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.e2e.plw import Workplace, kill_all, make_workplace, poll, rank_processes

pytestmark = pytest.mark.slow

PLWS = [0, 0.01, 0.242, 1]
SCORES = {
    "heldout_completion_loss",
    "heldout_prompt_loss",
    "heldout_completion_bits_per_byte",
    "heldout_prompt_bits_per_byte",
    "heldout_user_loss",
    "heldout_template_loss",
    "multiple_choice_accuracy",
    "short_generation_exact_match",
    "long_generation_chrf",
}


class TestOwnModelAndData:
    """The demo's spec with its two lines edited."""

    @pytest.fixture(scope="class")
    def workplace(self, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
        workplace = make_workplace(tmp_path_factory.mktemp("own"))
        done = workplace.plw("sweep", "sweep.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        (workplace.folder / "output.txt").write_text(done.stdout)
        return workplace

    def test_every_trial_is_done_and_scored(self, workplace: Workplace) -> None:
        trials = workplace.trials()
        assert [t["settings"]["loss"]["prompt_loss_weight"] for t in trials] == PLWS
        assert [t["state"] for t in trials] == ["done"] * 4
        assert [t["attempts"] for t in trials] == [1] * 4
        for trial in trials:
            path = workplace.sweep / "trials" / trial["id"] / "scores.json"
            scores = json.loads(path.read_text())["scores"]
            assert {score["name"] for score in scores} == SCORES
            assert all(score["num_overlapping"] is not None for score in scores)

    def test_mlflow_has_a_parent_and_a_child_for_each_trial(self, workplace: Workplace) -> None:
        runs = workplace.runs()
        [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        children = [run for run in runs if run is not parent]
        assert len(children) == 4
        weights = {float(run.data.params["loss.prompt_loss_weight"]) for run in children}
        assert weights == set(PLWS)
        for run in children:
            assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
            assert run.info.status == "FINISHED"
            assert run.data.metrics.keys() >= {*SCORES, "aggregate_relative"}
            assert workplace.metric_steps(run.info.run_id, "completion_loss") == [*range(1, 19)]
        assert parent.data.metrics.keys() >= {f"untuned_{name}" for name in SCORES}

    def test_the_report_shows_each_trial_and_its_caveats(self, workplace: Workplace) -> None:
        report = (workplace.sweep / "report.md").read_text()
        for trial in workplace.trials():
            assert trial["id"] in report
        assert "ingle seed" in report or "ingle-seed" in report
        page = (workplace.sweep / "report.html").read_text()
        assert page.count("data:image/svg+xml;base64,") >= 3
        assert 'src="http' not in page

    def test_the_screen_shows_progress_and_next_commands_only(self, workplace: Workplace) -> None:
        output = (workplace.folder / "output.txt").read_text()
        assert "PLW 0.242  done" in output
        assert "plw ui runs/sweep" in output
        for chatter in ("WARNING", "FutureWarning", "DeepSpeed", "Loading weights", "(raylet"):
            assert chatter not in output

    def test_the_trained_model_loads_as_any_other(self, workplace: Workplace) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = workplace.sweep / "trials" / workplace.trials()[0]["id"] / "model"
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert model.config.vocab_size == len(tokenizer)
        assert tokenizer.chat_template is not None

    def test_a_second_run_skips_what_is_done(self, workplace: Workplace) -> None:
        before = {run.info.run_id for run in workplace.runs()}
        again = workplace.plw("sweep", "sweep.yaml")
        assert again.returncode == 0
        assert "4 trials were done before and were skipped." in again.stdout
        assert {run.info.run_id for run in workplace.runs()} == before

    def test_status_and_report_print_json(self, workplace: Workplace) -> None:
        status = json.loads(workplace.plw("status", "runs/sweep", "--json").stdout)
        assert [row["state"] for row in status] == ["done"] * 4
        report = workplace.plw("report", "runs/sweep", "--json")
        assert isinstance(json.loads(report.stdout), dict)

    def test_plan_knows_what_is_done(self, workplace: Workplace) -> None:
        plan = json.loads(workplace.plw("plan", "sweep.yaml", "--json").stdout)
        assert plan["num_done"] == 4
        assert "measured on 4 finished trials" in plan["estimate_basis"]

    def test_eval_gives_the_scores_of_the_sweep_again(self, workplace: Workplace) -> None:
        trial_id = workplace.trials()[1]["id"]
        folder = workplace.sweep / "trials" / trial_id
        done = workplace.plw(
            *("eval", str(folder / "model"), "--config", "sweep.yaml", "-o", "again", "--json"),
        )
        assert done.returncode == 0, done.stderr
        again = {s["name"]: s["value"] for s in json.loads(done.stdout)["scores"]}
        first = json.loads((folder / "scores.json").read_text())["scores"]
        assert again == pytest.approx({s["name"]: s["value"] for s in first}, rel=1e-5)

    def test_an_added_value_runs_only_what_is_new(self, workplace: Workplace) -> None:
        path = workplace.folder / "sweep.yaml"
        path.write_text(path.read_text().replace("[0, 0.01, 0.242, 1]", "[0, 0.01, 0.1, 0.242, 1]"))
        done = workplace.plw("sweep", "sweep.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "4 trials were done before and were skipped." in done.stdout
        assert len(workplace.trials()) == 5
        assert len(workplace.runs()) == 6


@pytest.fixture
def two_ranks(tmp_path: Path) -> Workplace:
    """Two trials of two ranks under ZeRO 2, long enough to be disturbed."""
    return make_workplace(
        tmp_path,
        resources={"workers_per_trial": 2, "cpus_per_worker": 1},
        deepspeed={"zero_stage": 2},
        schedule={"steps": 200},
        checkpoint={"every_steps": 30},
        search={"space": {"loss.prompt_loss_weight": [0, 0.1]}},
    )


def steps_of(workplace: Workplace, index: int) -> int:
    trials = workplace.trials()
    if len(trials) <= index:
        return 0
    path = workplace.sweep / "trials" / trials[index]["id"] / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.full  # test_kills.py kills a worker too, of a smaller sweep
def test_a_killed_rank_resumes_its_trial_from_the_checkpoint(two_ranks: Workplace) -> None:
    driver = two_ranks.start("sweep", "sweep.yaml")
    poll(lambda: steps_of(two_ranks, 0) > 70, "step 70 of the first trial")
    [*ranks] = rank_processes(driver)
    assert len(ranks) == 2
    ranks[-1].kill()
    output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, output
    assert [t["state"] for t in two_ranks.trials()] == ["done", "done"]
    assert [t["attempts"] for t in two_ranks.trials()] == [2, 1]
    log = two_ranks.sweep / "trials" / two_ranks.trials()[0]["id"] / "log.txt"
    assert "resumed from step" in log.read_text()
    for run in two_ranks.runs():
        if "mlflow.parentRunId" in run.data.tags:
            assert two_ranks.metric_steps(run.info.run_id, "completion_loss") == [*range(1, 201)]


@pytest.mark.full  # test_kills.py kills the driver too, of a smaller sweep
def test_a_killed_sweep_goes_on_where_it_was(two_ranks: Workplace) -> None:
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
        assert two_ranks.metric_steps(run.info.run_id, "completion_loss") == [*range(1, 201)]


def test_a_trial_that_diverges_fails_alone(tmp_path: Path) -> None:
    workplace = make_workplace(
        tmp_path,
        # Beyond float32 after one step, whatever the processor makes of large numbers.
        search={"space": {"optimizer.weight_decay": [1e60, 0.0]}},
    )
    done = workplace.plw("sweep", "sweep.yaml")
    assert done.returncode == 1
    assert [t["state"] for t in workplace.trials()] == ["failed", "done"]
    assert "the loss of step 2 is nan" in workplace.trials()[0]["error"]
    assert "failed: " in done.stdout
    status = {
        float(run.data.params["optimizer.weight_decay"]): run.info.status
        for run in workplace.runs()
        if "mlflow.parentRunId" in run.data.tags
    }
    assert status == {1e60: "FAILED", 0.0: "FINISHED"}


def test_an_interrupted_sweep_says_so_and_goes_on(tmp_path: Path) -> None:
    workplace = make_workplace(
        tmp_path,
        schedule={"steps": 3000},
        checkpoint={"every_steps": 20},
        search={"space": {"loss.prompt_loss_weight": [0.1]}},
    )
    driver = workplace.start("sweep", "sweep.yaml")
    poll(lambda: steps_of(workplace, 0) > 60, "step 60")
    # Ctrl-C on a terminal reaches the whole process group.
    os.killpg(driver.pid, signal.SIGINT)
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 1, output
    assert "stopping; the same command goes on" in output
    assert workplace.trials()[0]["state"] == "interrupted"
    assert [run.info.status for run in workplace.runs()] == ["KILLED", "KILLED"]
    assert "interrupted: 1 trial is not finished" in output
    assert "Traceback" not in output
    last_step = steps_of(workplace, 0)
    driver = workplace.start("sweep", "sweep.yaml")
    log = workplace.sweep / "trials" / workplace.trials()[0]["id"] / "log.txt"
    # Its checkpoint was written when it was interrupted, so no step is lost.
    poll(lambda: f"resumed from step {last_step} of 3000" in log.read_text(), "the resumed trial")
    kill_all(driver)
