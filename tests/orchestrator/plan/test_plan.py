"""Plans: finished trials, identity of trials, searchable settings."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from transformers import GPT2Config, GPT2LMHeadModel

from evals.results.scores import ScoreCard
from orchestrator.cluster.submit import read_spec
from orchestrator.plan.estimates import seconds_at_risk
from orchestrator.plan.sweep_plan import PreparedSweep, make_plan
from orchestrator.record.folder import SweepFolder
from orchestrator.record.remote_sweep import RemoteSweep
from orchestrator.report.pages import write_report
from orchestrator.spec.sweep_spec import load_spec
from orchestrator.trials.run_trial import score
from orchestrator.trials.sweep import prepare_folder
from tests.evals.benchmark_files import write_data_root
from tests.object_stores import BUCKET, s3_server
from tests.orchestrator.plw import plw, plw_json, refused
from tests.tiny_model import save_tiny_model, tiny_tokenizer
from tests.trainers.tiny_runs import write_data
from trainers.config import TrainConfig
from trainers.foundation.errors import InputError
from trainers.foundation.files import write_json


def write_spec(folder: Path, **changes: Any) -> Path:
    if not (folder / "model").exists():
        save_tiny_model(folder / "model")
        write_data(folder / "data.jsonl", 60)
        (folder / "prompt.jinja").write_text("Q: {{ prompt }}\nA:")
    spec = {
        "model": {"path": str(folder / "model")},
        "data": {
            "path": str(folder / "data.jsonl"),
            "template": str(folder / "prompt.jinja"),
            "max_length": 64,
            "heldout_examples": 20,
        },
        "schedule": {"steps": 3},
        "search": {"space": {"loss.prompt_loss_weight": [0, 0.1]}},
        "evals": {"heldout": {"examples": 8}, "heldout_choice": None, "heldout_exact_match": None,
                  "heldout_chrf": None},
        "output_dir": str(folder / "runs"),
        **changes,
    }  # fmt: skip
    path = folder / "mine.yaml"
    with path.open("w") as file:
        YAML().dump(spec, file)
    return path


def finish(prepared: PreparedSweep, folder: SweepFolder) -> None:
    """Write all trials as done, with the scores that the spec requires."""
    bases = {base.key: base for base in prepared.baselines}
    places = [(folder.baseline(key), key) for key in bases]
    for trial in folder.read_trials():
        folder.write_trial(trial.model_copy(update={"state": "done"}))
        places.append((folder.trial(trial.id), trial.base))
    for place, key in places:
        card = ScoreCard(model_path="m", scores=[], signature=bases[key].scoring, seconds=1.0)
        write_json(place / "scores.json", card.model_dump(mode="json"))


def states(path: Path) -> list[str]:
    return [trial.state for trial in make_plan(load_spec(path)).plan.trials]


def ids(path: Path) -> list[str]:
    return [trial.id for trial in make_plan(load_spec(path)).plan.trials]


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """Return a spec whose trials are all done and scored."""
    path = write_spec(tmp_path)
    spec = load_spec(path)
    prepared = make_plan(spec)
    folder = SweepFolder(spec.folder)
    prepare_folder(spec, prepared, path)
    finish(prepared, folder)
    return path


def test_a_sweep_without_a_name_is_named_after_its_file(tmp_path: Path) -> None:
    assert load_spec(write_spec(tmp_path)).name == "mine"


def test_settings_and_searched_values_can_be_overridden(tmp_path: Path) -> None:
    path = write_spec(tmp_path)
    changes = ("schedule.steps=7", "search.space.loss.prompt_loss_weight=[0, 0.5, 1]")
    spec = load_spec(path, changes)
    assert spec.schedule.steps == 7
    assert spec.search.space["loss.prompt_loss_weight"] == [0, 0.5, 1]
    submitted = read_spec(path, output_dir=None, tracking_uri=None, overrides=changes)
    assert submitted["schedule"]["steps"] == 7
    assert submitted["search"]["space"]["loss.prompt_loss_weight"] == [0, 0.5, 1]


def test_the_command_that_resumes_a_sweep_repeats_its_overrides(tmp_path: Path) -> None:
    path = write_spec(tmp_path)
    changes = ("note=two words", "seed=3")
    spec = load_spec(path, changes)
    prepare_folder(spec, make_plan(spec), path, changes)
    record = SweepFolder(spec.folder).read_sweep()
    assert (
        record.command
        == f"plw sweep {path} -o {spec.output_dir} --set 'note=two words' --set seed=3"
    )


def test_finished_trials_are_planned_as_done(finished: Path) -> None:
    assert states(finished) == ["done", "done"]
    assert make_plan(load_spec(finished)).plan.has_baseline_scores


def test_planning_from_an_object_store_writes_nothing_to_the_sweeps_folder(finished: Path) -> None:
    path = write_spec(finished.parent, storage=f"s3://{BUCKET}/runs")
    spec = load_spec(path)
    folder = SweepFolder(spec.folder)
    with s3_server():
        stored = RemoteSweep(folder.root, f"s3://{BUCKET}/runs/mine")
        stored.upload_changed({})
        for trial in folder.read_trials():
            stored.upload("trial", trial.id)
            stored.upload("base", trial.base)
        shutil.rmtree(folder.root)
        plan = plw_json("plan", path)
    assert (plan["num_done"], plan["output_dir"]) == (2, str(folder.root))
    assert not folder.root.exists()


def test_early_stopping_after_the_last_step_is_rejected(tmp_path: Path) -> None:
    search = {"space": {"loss.prompt_loss_weight": [0, 0.1]}}
    late = write_spec(
        tmp_path, search=search | {"early_stopping": {"method": "asha", "first_step": 3}}
    )
    assert "first_step must be less than the steps of a trial, 3, got 3" in refused("plan", late)
    early = write_spec(
        tmp_path, search=search | {"early_stopping": {"method": "asha", "first_step": 2}}
    )
    assert make_plan(load_spec(early)).plan.num_trials == 2


@pytest.mark.parametrize(
    ("checkpoint", "seconds"),
    [
        ({}, 900),
        ({"every_minutes": 10}, 600),
        ({"every_steps": 50}, 360),
        ({"every_minutes": None}, 7200),
        ({"every_minutes": None, "every_steps": 500}, 3600),
    ],
)
def test_a_lost_node_costs_the_time_since_the_last_checkpoint(
    checkpoint: dict[str, Any], seconds: float
) -> None:
    settings = TrainConfig.model_validate(
        {"model": {"path": "m"}, "data": {"path": "d"}, "checkpoint": checkpoint}
    )
    assert seconds_at_risk(settings, steps=1000, train_seconds=7200) == seconds


def test_other_evaluations_score_finished_trials_again(finished: Path) -> None:
    other = {"heldout": {"examples": 5}, "heldout_choice": None, "heldout_exact_match": None,
             "heldout_chrf": None}  # fmt: skip
    path = write_spec(finished.parent, evals=other)
    first = ids(path)[0]
    SweepFolder(load_spec(path).folder).model(first).mkdir()
    # The second trial's model was deleted.
    assert states(path) == ["scores", "pending"]


def test_edited_template_file_changes_trial_ids_and_scores(finished: Path) -> None:
    before = ids(finished)
    (finished.parent / "prompt.jinja").write_text("{{ prompt }} =>")
    assert not set(before) & set(ids(finished))
    assert states(finished) == ["pending", "pending"]
    assert not make_plan(load_spec(finished)).plan.has_baseline_scores


def test_moved_template_file_keeps_trial_ids(finished: Path) -> None:
    before = ids(finished)
    folder = finished.parent
    shutil.move(folder / "prompt.jinja", folder / "moved.jinja")
    content = YAML(typ="safe").load(finished.read_text())
    content["data"]["template"] = str(folder / "moved.jinja")
    assert ids(write_spec(folder, data=content["data"])) == before


@pytest.mark.parametrize(
    "dotted", ["log_every_steps", "log_heldout_every_steps", "checkpoint.every_steps"]
)
def test_settings_without_effect_on_results_cannot_be_searched(dotted: str, tmp_path: Path) -> None:
    path = write_spec(tmp_path, search={"space": {dotted: [1, 2]}})
    with pytest.raises(InputError, match=f"{dotted} cannot be searched: it does not affect"):
        load_spec(path)


def test_searched_value_of_the_wrong_type_is_reported_with_its_line(tmp_path: Path) -> None:
    path = write_spec(tmp_path, search={"space": {"loss.prompt_loss_weight": [0, "0.1"]}})
    with pytest.raises(InputError, match=r"mine.yaml:\d+: search.space.* valid number, got '0.1'"):
        load_spec(path)


@pytest.mark.parametrize(
    ("dotted", "values"),
    [
        ("loss.normalization", ["weights", "tokens"]),
        ("deepspeed.zero_stage", [1, 2]),
        ("schedule.kind", ["cosine", "linear"]),
        ("loss.role_weights.template", [0.0, 0.5]),
        ("seed", [0, 1]),
    ],
)
def test_any_other_setting_can_be_searched(dotted: str, values: list[Any], tmp_path: Path) -> None:
    planned = make_plan(load_spec(write_spec(tmp_path, search={"space": {dotted: values}}))).plan
    assert [trial.searched for trial in planned.trials] == [{dotted: value} for value in values]
    assert len({trial.id for trial in planned.trials}) == 2
    assert json.loads(planned.model_dump_json())["num_done"] == 0


def test_a_damaged_record_is_reported_before_planning(finished: Path) -> None:
    folder = SweepFolder(load_spec(finished).folder)
    trial_id = ids(finished)[0]
    (folder.trial(trial_id) / "trial.json").write_text("{")
    with pytest.raises(InputError, match=f"{trial_id}/trial.json"):
        make_plan(load_spec(finished))
    folder.sweep_json.write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"sweep\.json"):
        make_plan(load_spec(finished))


def test_a_plan_states_where_models_are_scored(tmp_path: Path) -> None:
    path = write_spec(tmp_path, resources={"scorers": 0})
    assert "\nscoring            by each trial's workers\n" in plw("plan", path).output


@pytest.mark.slow
def test_a_sweep_with_only_benchmarks_needs_no_held_out_examples(tmp_path: Path) -> None:
    # lm-eval alone takes seconds to import.
    path = write_spec(
        tmp_path,
        data={"path": str(tmp_path / "data.jsonl"), "template": "plain", "max_length": 64,
              "heldout_examples": 0},
        evals={**dict.fromkeys(("heldout", "heldout_choice", "heldout_exact_match",
                                "heldout_chrf")),
               "tasks": ["piqa"], "limit": 2,
               "data_root": str(write_data_root(tmp_path / "root", num_items=3))},
    )  # fmt: skip
    spec = load_spec(path)
    prepared = make_plan(spec)
    assert [trial.state for trial in prepared.plan.trials] == ["pending", "pending"]
    prepare_folder(spec, prepared, path)
    folder = SweepFolder(spec.folder)
    evals, [base] = spec.evals.model_dump(mode="json"), prepared.baselines
    score(folder.root, "base", base.key, base.key, base.model_path, base.settings, evals, 1)
    for trial in folder.read_trials():
        settings = trial.settings
        score(folder.root, "trial", trial.id, base.key, base.model_path, settings, evals, 1)
        folder.write_trial(trial.model_copy(update={"state": "done"}))
    again = make_plan(spec).plan
    assert [trial.state for trial in again.trials] == ["done", "done"]
    assert again.has_baseline_scores
    assert not again.has_work
    write_report(folder)
    assert "piqa" in folder.report_md.read_text()
    assert "2 of 2 done" in plw("status", folder.root).output


def test_model_with_too_few_positions_is_rejected_at_planning_time(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=259, n_positions=32, n_embd=32, n_layer=1, n_head=4)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tiny_tokenizer().save_pretrained(tmp_path / "gpt2")
    message = refused("plan", write_spec(tmp_path, model={"path": str(tmp_path / "gpt2")}))
    assert "data.max_length 64 exceeds the model's 32 positions" in message
    assert "set data.max_length to 32 or less" in message
