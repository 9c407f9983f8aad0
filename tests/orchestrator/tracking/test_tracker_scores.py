"""Tests of the scores, the answer and the report in MLflow."""

import json
import math
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.record.folder import SweepFolder
from orchestrator.report.pages import write_report
from tests.orchestrator.sweeps import (
    BASE,
    DEMO,
    OTHER_BASE,
    card,
    write_card,
    write_hill,
    write_two_models,
)
from tests.orchestrator.tracking.test_tracker import FIRST, artifacts, history, run_of, track
from trainers.foundation.files import write_text


def test_finish_posts_untuned_scores_and_report_and_a_later_run_reopens(
    demo_sweep: SweepFolder, store_uri: str
) -> None:
    write_report(demo_sweep)
    tracker = track(demo_sweep, store_uri)
    assert tracker.finish("FINISHED")
    client = MlflowClient(store_uri)
    parent = client.get_run(tracker.record.parent_run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["untuned/quiz.acc"] == 0.56
    assert parent.data.metrics["interval/untuned_quiz.acc_ci_low"] == 0.441
    assert parent.data.tags["plw.trials_done"] == "4"
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("Overall: cannot say: 1 residual degree of freedom to estimate noise")
    assert "\n\nAll verdicts use 4 trials (4 weights, 1 seed each).\n\n| Scores |" in note
    assert "\n| Multiple choice (quiz.acc, points) | cannot say" in note
    assert note.startswith(parent.data.tags["answer"])
    assert parent.data.tags["answer_multiple_choice"].startswith("cannot say")
    run_id = parent.info.run_id
    expected = ["plots", "report.html", "report.md", "sweep.json", "untuned"]
    assert artifacts(client, run_id) == expected
    assert "plots/scores.png" in artifacts(client, run_id, "plots")

    track(demo_sweep, store_uri)
    assert client.get_run(run_id).info.status == "RUNNING"


def test_the_answer_is_posted_as_tags_and_metrics_with_a_common_prefix(
    tmp_path: Path, store_uri: str
) -> None:
    folder = write_hill(tmp_path / "s")
    tracker = track(folder, store_uri)
    assert tracker.finish("FINISHED")
    data = MlflowClient(store_uri).get_run(tracker.record.parent_run_id).data
    assert data.tags["answer_overall"].startswith("best PLW 0.2")
    assert data.tags["answer_overall"].endswith("; nearest tried: 0.25)")
    assert [name for name in sorted(data.metrics) if "answer" in name and "overall" in name] == [
        "answer/overall_best_plw",
        "answer/overall_gain",
        "answer/overall_nearest_tried_plw",
        "answer/overall_p_value",
        "interval/answer_overall_best_plw_ci_high",
        "interval/answer_overall_best_plw_ci_low",
        "interval/answer_overall_gain_ci_high",
        "interval/answer_overall_gain_ci_low",
    ]
    assert data.metrics["answer/overall_nearest_tried_plw"] == 0.25
    assert data.metrics["answer/multiple_choice_best_plw"] == pytest.approx(0.24, abs=0.08)


def test_an_answer_that_no_longer_holds_does_not_stay(tmp_path: Path, store_uri: str) -> None:
    folder = write_hill(tmp_path / "s")
    assert track(folder, store_uri).finish("FINISHED")
    # The scores of a later evaluation have one group, and no weight is better.
    for trial_id in folder.read_sweep().trial_ids:
        write_card(folder.trial(trial_id), card({"quiz.acc": (0.5, 0.4, 0.6)}))
    now = time.time() + 1
    os.utime(folder.sweep_json, (now, now))
    tracker = track(folder, store_uri)
    for _ in range(2):  # The second time, nothing is posted again.
        assert tracker.finish("FINISHED")
        client, run_id = MlflowClient(store_uri), tracker.record.parent_run_id
        data = client.get_run(run_id).data
        assert data.tags["answer_multiple_choice"].startswith("cannot say: repeated trials")
        assert "answer_overall" not in data.tags
        starts = ("answer/", "interval/answer_")
        answers = {name: value for name, value in data.metrics.items() if name.startswith(starts)}
        assert len(answers) > 8
        assert all(math.isnan(value) for value in answers.values())
        assert len(client.get_metric_history(run_id, "answer/overall_best_plw")) == 2


def test_training_and_scoring_have_separate_names_for_the_heldout_loss(
    demo_sweep: SweepFolder, store_uri: str
) -> None:
    lines = [
        {"step": step, "time": 1.0, "loss": 1.5, "heldout_completion_loss": 2.5, "distance": 0.5}
        for step in (24, 48)
    ]
    write_text(demo_sweep.metrics(FIRST), "".join(f"{json.dumps(line)}\n" for line in lines))
    tracker = track(demo_sweep, store_uri)
    tracker.sync_trial(FIRST)
    client, run_id = MlflowClient(store_uri), run_of(tracker, FIRST)
    assert history(client, run_id, "heldout/completion_loss") == [(24, 2.5), (48, 2.5)]
    assert history(client, run_id, "eval/heldout_completion_loss") == [(48, 2.031)]
    metrics = client.get_run(run_id).data.metrics
    assert {name.partition("/")[0] for name in metrics} == {"train", "heldout", "eval", "interval"}
    assert [len(client.get_metric_history(run_id, key)) for key in metrics if "eval" in key] == (
        [1] * len([key for key in metrics if "eval" in key])
    )


def test_runs_of_an_earlier_release_get_all_metrics_under_the_new_names(
    demo_sweep: SweepFolder, store_uri: str
) -> None:
    tracker = track(demo_sweep, store_uri)
    assert tracker.finish("FINISHED")
    client, run_id = MlflowClient(store_uri), run_of(tracker, FIRST)
    before = client.get_run(run_id).data.metrics
    assert len(before) > 20
    # As after an earlier release: the state counts everything as posted, under other names.
    with closing(sqlite3.connect(store_uri.removeprefix("sqlite:///"))) as database, database:
        for table in ("metrics", "latest_metrics"):
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", [run_id])
    state = demo_sweep.trial(FIRST) / "tracking_state.json"
    content = json.loads(state.read_text())
    assert content.pop("names_version") == 2
    write_text(state, json.dumps(content))
    assert track(demo_sweep, store_uri).finish("FINISHED")
    assert client.get_run(run_id).data.metrics == before


def test_new_scores_of_a_trial_become_the_latest_values(
    demo_sweep: SweepFolder, store_uri: str
) -> None:
    tracker = track(demo_sweep, store_uri)
    tracker.sync_trial(FIRST)
    lower = DEMO[0.0] | {"quiz.acc": (0.5, 0.4, 0.6)}
    write_card(demo_sweep.trial(FIRST), card(lower))
    tracker.sync_trial(FIRST)
    client = MlflowClient(store_uri)
    run_id = run_of(tracker, FIRST)
    assert client.get_run(run_id).data.metrics["eval/quiz.acc"] == 0.5
    assert len(client.get_metric_history(run_id, "eval/quiz.acc")) == 2
    assert len(client.get_metric_history(run_id, "eval/essays.chrf")) == 1


def test_aggregates_are_posted_when_the_untuned_scores_come_later(
    demo_sweep: SweepFolder, store_uri: str
) -> None:
    untuned = demo_sweep.baseline(BASE) / "scores.json"
    content = untuned.read_text()
    untuned.unlink()
    tracker = track(demo_sweep, store_uri)
    tracker.sync_trial(FIRST)
    client = MlflowClient(store_uri)
    before = client.get_run(run_of(tracker, FIRST)).data.metrics
    assert before["eval/aggregate_multiple_choice"] == 75
    assert "eval/aggregate_relative" not in before
    untuned.write_text(content)
    for _ in range(2):
        assert tracker.finish("FINISHED")
    after = client.get_run(run_of(tracker, FIRST)).data.metrics
    assert after["eval/aggregate_relative"] > 0
    assert after["interval/aggregate_relative_ci_low"] < after["eval/aggregate_relative"]
    for name in ("aggregate_relative", "aggregate_multiple_choice", "quiz.acc"):
        assert len(client.get_metric_history(run_of(tracker, FIRST), f"eval/{name}")) == 1
    parent = client.get_run(tracker.record.parent_run_id).data.metrics
    assert parent["untuned/aggregate_multiple_choice"] == pytest.approx(56)


def test_several_untuned_models_have_separate_metrics_on_the_parent(
    tmp_path: Path, store_uri: str
) -> None:
    tracker = track(write_two_models(tmp_path / "s"), store_uri)
    assert tracker.finish("FINISHED")
    client = MlflowClient(store_uri)
    parent = client.get_run(tracker.record.parent_run_id)
    name = "quiz.acc"
    assert parent.data.metrics[f"untuned_{BASE}/{name}"] == 0.4
    assert parent.data.metrics[f"untuned_{OTHER_BASE}/{name}"] == 0.68
    assert f"untuned/{name}" not in parent.data.metrics
    assert parent.data.tags[f"plw.untuned_{OTHER_BASE}"] == "model strong"
    paths = artifacts(client, parent.info.run_id, "untuned")
    assert paths == [f"untuned/{BASE}", f"untuned/{OTHER_BASE}"]
