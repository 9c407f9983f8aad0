"""Records of other releases: an older one's are used, a newer one's are read or refused."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.plan.history import read_history
from orchestrator.plan.planner import Planner
from orchestrator.plan.sweep_plan import make_plan
from orchestrator.record.folder import SweepFolder, check_records
from orchestrator.report.pages import write_report
from orchestrator.spec.sweep_spec import SweepSpec, load_spec
from orchestrator.trials.run_trial import is_trained, train_result
from orchestrator.trials.sweep import prepare_folder
from tests.orchestrator.sweeps import BASE
from trainers.config import TrainConfig
from trainers.foundation.errors import InputError
from trainers.foundation.files import read_json, write_json
from trainers.sft import train

# A sweep that commit 1e4b69e ran and `plw stop` cut: trials of PLW 0 and 0.1 with distance penalty
# 0 and 0.01. Two are done, one has a checkpoint of step 41 of 200, one had not started. Logs,
# samples and trained models are left out; @ROOT@ stands for the working directory.
OLD_RELEASE = Path(__file__).with_name("release_0_1_0")
DONE = ["5f504715ba", "cc18a73fb3"]
INTERRUPTED, PENDING = "b20ae105cf", "519e08edbc"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The old sweep's working directory, as the current one."""
    root = tmp_path / "old"
    shutil.copytree(OLD_RELEASE, root)
    for path in root.rglob("*.json"):
        path.write_text(path.read_text().replace("@ROOT@", str(root)))
    monkeypatch.chdir(root)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return root


def spec_of(old: Path, *overrides: str) -> SweepSpec:
    return load_spec(old / "mine.yaml", overrides)


def test_trials_of_the_old_release_are_found_by_their_old_ids(old: Path) -> None:
    plan = make_plan(spec_of(old)).plan
    assert [trial.id for trial in plan.trials] == [*DONE, INTERRUPTED, PENDING]
    assert [trial.state for trial in plan.trials] == ["done", "done", "pending", "pending"]
    assert plan.has_baseline_scores


def test_an_old_sweep_is_extended_by_new_trials_only(old: Path) -> None:
    spec = spec_of(old, "search.space={loss.prompt_loss_weight: [0, 0.5], optimizer.l2_sp: [0]}")
    prepared = make_plan(spec)
    assert [trial.state for trial in prepared.plan.trials] == ["done", "pending"]
    new = prepared.plan.trials[1].id
    assert prepare_folder(spec, prepared, old / "mine.yaml") == [new]
    # The new trial has an id of the new kind, which the next plan finds again.
    assert [trial.id for trial in make_plan(spec).plan.trials] == [DONE[0], new]


def test_an_old_sweep_is_reported_under_the_current_names(old: Path) -> None:
    folder = SweepFolder(old / "runs" / "old")
    check_records(folder)
    assert [t.searched["optimizer.l2_sp"] for t in folder.read_trials()] == [0, 0.01, 0, 0.01]
    assert all("distance_penalty" not in t.settings["optimizer"] for t in folder.read_trials())
    assert folder.read_sweep().spec["optimizer"]["l2_sp"] == 0
    assert folder.read_sweep().spec["search"]["space"]["optimizer.l2_sp"] == [0, 0.01]
    write_report(folder)
    assert "optimizer.l2_sp" in folder.report_md.read_text()
    assert "distance_penalty" not in folder.report_html.read_text()


def test_a_search_learns_from_an_old_sweep(old: Path) -> None:
    spec = spec_of(
        old,
        "output_dir=runs/new",
        "search={method: tpe, points: 4, warm_start: [runs/old],"
        " space: {loss.prompt_loss_weight: {low: 0, high: 1}, optimizer.l2_sp: [0, 0.01]}}",
    )
    known = read_history(spec, Planner(spec)).known
    assert [o.searched["optimizer.l2_sp"] for o in known] == [0, 0.01]
    assert all(o.state == "done" for o in known)


def test_an_interrupted_trial_of_the_old_release_resumes_from_its_checkpoint(old: Path) -> None:
    spec = spec_of(old)
    prepared = make_plan(spec)
    prepare_folder(spec, prepared, old / "mine.yaml")
    folder = SweepFolder(spec.folder)
    record = folder.read_trial(INTERRUPTED)
    assert record is not None
    steps: list[None] = []
    config = TrainConfig.model_validate(record.settings)
    train(config, folder.trial(INTERRUPTED), get_stop_request=lambda: steps.append(None))
    assert len(steps) == 159
    lines = [json.loads(line) for line in folder.metrics(INTERRUPTED).read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 40, *range(60, 201, 20)]
    assert is_trained(folder.root, record)


def test_a_finished_training_of_the_old_release_is_only_scored(old: Path) -> None:
    """Its model is there, but the sweep was cut before the scores were taken."""
    spec = spec_of(old)
    folder = SweepFolder(spec.folder)
    record = folder.read_trial(DONE[1])
    assert record is not None
    assert not is_trained(folder.root, record)
    folder.model(DONE[1]).mkdir()
    assert is_trained(folder.root, record)


def test_unknown_fields_are_ignored_with_one_warning(
    demo_sweep: SweepFolder, caplog: pytest.LogCaptureFixture
) -> None:
    for path in demo_sweep.root.glob("trials/*/trial.json"):
        write_json(path, {**read_json(path), "priority_2031": 3})
    scores = demo_sweep.root / "bases" / BASE / "scores.json"
    write_json(scores, {**read_json(scores), "energy_2031": 1.5})
    with caplog.at_level(logging.WARNING):
        check_records(demo_sweep)
        write_report(demo_sweep)
    assert sorted(caplog.messages) == [
        "ScoreCard: ignoring unknown fields energy_2031; a newer plw-sweep wrote this record, "
        "upgrade to use them",
        "TrialRecord: ignoring unknown fields priority_2031; a newer plw-sweep wrote this record, "
        "upgrade to use them",
    ]


def test_an_unknown_field_of_a_training_result_is_ignored(old: Path) -> None:
    path = old / "runs" / "old" / "trials" / DONE[0] / "train.json"
    content = read_json(path)
    before = train_result(old / "runs" / "old", DONE[0])
    write_json(path, {**content, "result": {**content["result"], "joules_2031": 7}})
    assert train_result(old / "runs" / "old", DONE[0]) == before


def newer(folder: SweepFolder, **changes: Any) -> None:
    content = read_json(folder.sweep_json)
    content["environment"]["packages"] = {"plw-sweep": "7.2.0"}
    write_json(folder.sweep_json, {**content, **changes})


def test_a_newer_version_is_refused_with_the_release_that_wrote_it(
    demo_sweep: SweepFolder,
) -> None:
    newer(demo_sweep, version=2)
    with pytest.raises(InputError) as caught:
        check_records(demo_sweep)
    assert str(caught.value) == (
        f"{demo_sweep.sweep_json}: written by a newer plw-sweep 7.2.0: the record has version 2, "
        "this release reads up to 1; upgrade plw-sweep to 7.2.0"
    )


def test_an_unreadable_record_of_a_newer_release_asks_for_an_upgrade(
    demo_sweep: SweepFolder,
) -> None:
    newer(demo_sweep)
    check_records(demo_sweep)
    path = sorted(demo_sweep.root.glob("trials/*/trial.json"))[0]
    write_json(path, {**read_json(path), "state": "paused"})
    with pytest.raises(InputError) as caught:
        check_records(demo_sweep)
    [problem] = caught.value.problems
    assert problem.message.startswith("written by a newer plw-sweep 7.2.0: state: ")
    assert problem.fix == "upgrade plw-sweep to 7.2.0"


def test_a_damaged_record_is_to_be_restored_or_renamed_and_never_deleted(
    demo_sweep: SweepFolder,
) -> None:
    path = sorted(demo_sweep.root.glob("trials/*/trial.json"))[0]
    path.write_text("{")
    with pytest.raises(InputError) as caught:
        check_records(demo_sweep)
    assert caught.value.problems[0].fix == (
        "restore it from a backup, or rename it to trial.json.bad and run the sweep again, which "
        "runs that trial again"
    )
