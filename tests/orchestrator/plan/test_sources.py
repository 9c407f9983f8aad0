"""Sweeps over several models and data sets: reads, shared baselines, identity of trials."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from evals.heldout.examples import load_examples
from orchestrator.plan.planner import Planner, prepare_baseline
from orchestrator.plan.sweep_plan import SweepPlan, make_plan
from orchestrator.record.baselines import baseline_labels
from orchestrator.record.folder import SweepFolder
from orchestrator.spec.sweep_spec import load_spec
from orchestrator.trials.sweep import prepare_folder
from tests.orchestrator.sweeps import card, write_card
from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import write_data
from trainers.foundation.errors import InputError

PLWS = {"loss.prompt_loss_weight": [0, 0.1]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write two models that differ in a file, and two data sets, to the working directory."""
    save_tiny_model(tmp_path / "small")
    shutil.copytree(tmp_path / "small", tmp_path / "other")
    (tmp_path / "other" / "extra.json").write_text("{}")
    write_data(tmp_path / "sums.jsonl", 60)
    write_data(tmp_path / "more.jsonl", 90)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def write_spec(folder: Path, space: dict[str, list[Any]], **changes: Any) -> Path:
    spec = {
        "model": {"path": "small"},
        "data": {
            "path": "sums.jsonl",
            "template": "plain",
            "max_length": 64,
            "heldout_examples": 8,
        },
        "schedule": {"epochs": 1},
        "batch": {"global_batch_size": 4},
        "deepspeed": {"precision": "float32"},
        "evals": {"heldout": {"examples": 8}, "heldout_choice": None, "heldout_exact_match": None,
                  "heldout_chrf": None},
        "search": {"space": space},
        **changes,
    }  # fmt: skip
    path = folder / "mine.yaml"
    with path.open("w") as file:
        YAML().dump(spec, file)
    return path


def plan_of(folder: Path, space: dict[str, list[Any]], **changes: Any) -> SweepPlan:
    return make_plan(load_spec(write_spec(folder, space, **changes))).plan


def ids_by_values(plan: SweepPlan) -> dict[tuple[Any, ...], str]:
    """Return trial ids by (model, data, PLW)."""
    found = {}
    for trial in plan.trials:
        names = [Path(trial.settings[section]["path"]).name for section in ("model", "data")]
        found[(*names, trial.settings["loss"]["prompt_loss_weight"])] = trial.id
    return found


GRID = {"model.path": ["small", "other"], "data.path": ["sums.jsonl", "more.jsonl"], **PLWS}


def test_two_models_and_two_data_sets_give_four_baselines(folder: Path) -> None:
    plan = plan_of(folder, GRID)
    assert len(plan.trials) == 8
    assert len({trial.id for trial in plan.trials}) == 8
    assert [trial.base for trial in plan.trials[::2]] == [base.key for base in plan.bases]
    assert [trial.base for trial in plan.trials[1::2]] == [base.key for base in plan.bases]
    assert list(baseline_labels(plan.bases).values()) == [
        "model small, data sums.jsonl",
        "model small, data more.jsonl",
        "model other, data sums.jsonl",
        "model other, data more.jsonl",
    ]
    assert [base.data[0]["num_train"] for base in plan.bases] == [52, 82, 52, 82]
    assert [trial.steps for trial in plan.trials] == [13, 13, 21, 21, 13, 13, 21, 21]
    assert SweepPlan.model_validate_json(plan.model_dump_json()) == plan


def test_a_trial_does_not_depend_on_the_rest_of_its_sweep(folder: Path) -> None:
    together = ids_by_values(plan_of(folder, GRID))
    for model, data in (("small", "sums.jsonl"), ("other", "more.jsonl")):
        alone = ids_by_values(
            plan_of(
                folder,
                PLWS,
                model={"path": model},
                data={"path": data, "template": "plain", "max_length": 64, "heldout_examples": 8},
            )
        )
        assert alone == {values: together[values] for values in alone}
        assert len(alone) == 2


def test_an_added_model_does_not_change_the_other_trials(folder: Path) -> None:
    before = ids_by_values(plan_of(folder, {"model.path": ["small"], **PLWS}))
    after = ids_by_values(plan_of(folder, {"model.path": ["small", "other"], **PLWS}))
    assert before.items() < after.items()
    assert len(after) == 4


def test_each_source_is_read_once(folder: Path) -> None:
    planner = Planner(load_spec(write_spec(folder, GRID)))
    searched = {"model.path": "other", "data.path": "more.jsonl"}
    first = planner.plan_trial({**searched, "loss.prompt_loss_weight": 0.0})
    (folder / "more.jsonl").write_text("no longer what was read")
    second = planner.plan_trial({**searched, "loss.prompt_loss_weight": 0.37})
    assert first.id != second.id
    assert first.base == second.base
    assert [base.key for base in planner.baselines] == [first.base]
    assert planner.baseline_of(second).model_path.endswith("other")


def test_a_trial_planned_later_equals_that_of_the_grid(folder: Path) -> None:
    spec = load_spec(write_spec(folder, GRID))
    searched = {"model.path": "other", "data.path": "sums.jsonl", "loss.prompt_loss_weight": 0.1}
    assert Planner(spec).plan_trial(searched).id == make_plan(spec).plan.trials[5].id


def test_a_rejected_trial_does_not_change_the_planner(folder: Path) -> None:
    planner = Planner(load_spec(write_spec(folder, GRID)))
    with pytest.raises(InputError, match="no such file"):
        planner.plan_trial({"data.path": str(folder / "none.jsonl")})
    with pytest.raises(InputError, match=r"'schedule.steps': 3} is not valid: set exactly one"):
        planner.plan_trial({"schedule.steps": 3})
    assert planner.baselines == []
    assert planner.plan_trial({"loss.prompt_loss_weight": 1.0}).state == "pending"


def test_all_unreadable_sources_are_reported_at_once(folder: Path) -> None:
    space = {"model.path": ["small", "nowhere/else/a"], "data.path": ["no.jsonl", "sums.jsonl"]}
    with pytest.raises(InputError) as caught:
        plan_of(folder, space)
    assert [problem.message for problem in caught.value.problems] == [
        "no such file",
        "model.path is not a folder: nowhere/else/a",
    ]
    with pytest.raises(InputError) as caught:
        plan_of(folder, {"model.path": ["nowhere/else/a"], "data.path": ["no.jsonl"]})
    assert [problem.message for problem in caught.value.problems] == [
        "model.path is not a folder: nowhere/else/a",
        "no such file",
    ]


def test_a_copy_of_a_model_is_the_same_model(folder: Path) -> None:
    shutil.copytree(folder / "small", folder / "copy")
    with pytest.raises(InputError, match="are the same: their models and data have the same"):
        plan_of(folder, {"model.path": ["small", "copy"]})


def test_training_data_settings_give_other_trials_of_one_baseline(folder: Path) -> None:
    plan = plan_of(folder, {"data.train_examples": [10, 20], "data.too_long": ["truncate", "drop"]})
    [base] = plan.bases
    assert len({trial.id for trial in plan.trials}) == 4
    assert [(data["num_train"], data["too_long"]) for data in base.data] == [
        (10, "truncate"),
        (10, "drop"),
        (20, "truncate"),
        (20, "drop"),
    ]
    assert baseline_labels(plan.bases) == {base.key: ""}


@pytest.mark.parametrize(
    ("dotted", "values", "label"),
    [
        ("data.max_length", [32, 64], "max_length 32"),
        ("data.template", ["plain", "chat"], "template plain"),
    ],
)
def test_a_change_of_the_untuned_scores_gives_another_baseline(
    folder: Path, dotted: str, values: list[Any], label: str
) -> None:
    plan = plan_of(folder, {dotted: values})
    assert len(plan.bases) == 2
    assert baseline_labels(plan.bases)[plan.bases[0].key] == label


@pytest.mark.parametrize("dotted", ["data.seed", "data.heldout_examples"])
def test_the_held_out_split_cannot_be_searched(folder: Path, dotted: str) -> None:
    with pytest.raises(InputError, match=f"{dotted} cannot be searched: all trials share"):
        load_spec(write_spec(folder, {dotted: [8, 9]}))


def test_a_searched_model_path_may_be_omitted_elsewhere(folder: Path) -> None:
    plan = plan_of(folder, {"model.path": ["other", "small"]}, model={"attention": "eager"})
    paths = [Path(trial.settings["model"]["path"]) for trial in plan.trials]
    assert paths == [folder / "other", folder / "small"]
    assert [trial.searched for trial in plan.trials] == [
        {"model.path": "other"},
        {"model.path": "small"},
    ]
    assert {trial.settings["model"]["attention"] for trial in plan.trials} == {"eager"}


def test_the_folder_has_held_out_examples_and_scores_of_each_baseline(folder: Path) -> None:
    path = write_spec(folder, GRID)
    spec = load_spec(path)
    prepared = make_plan(spec)
    prepare_folder(spec, prepared, path)
    sweep_folder = SweepFolder(spec.folder)
    sweep = sweep_folder.read_sweep()
    assert [base.key for base in sweep.bases] == [base.key for base in prepared.baselines]
    assert [trial.base for trial in sweep_folder.read_trials()] == [
        trial.base for trial in prepared.plan.trials
    ]
    sums, more = (load_examples(sweep_folder.heldout(base.key)) for base in sweep.bases[:2])
    assert {example.id.split(":")[0] for example in sums} == {"sums.jsonl"}
    assert {example.id.split(":")[0] for example in more} == {"more.jsonl"}
    assert len(sums) == len(more) == 8


def test_untuned_scores_are_kept_if_they_match_the_spec(folder: Path) -> None:
    path = write_spec(folder, GRID)
    spec = load_spec(path)
    prepared = make_plan(spec)
    prepare_folder(spec, prepared, path)
    root = SweepFolder(spec.folder)
    for base, signature in zip(
        prepared.baselines[:2], (prepared.baselines[0].scoring, {"version": 0}), strict=True
    ):
        write_card(root.baseline(base.key), card({}).model_copy(update={"signature": signature}))
    again = make_plan(spec)
    assert [base.has_scores for base in again.plan.bases] == [True, False, False, False]
    for base in again.baselines:
        prepare_baseline(root, base)
    assert [root.read_baseline_scores(base.key) is not None for base in again.baselines] == [
        True,
        False,
        False,
        False,
    ]


def test_a_newly_searched_model_learns_of_earlier_trials(folder: Path) -> None:
    path = write_spec(folder, PLWS)
    spec = load_spec(path)
    prepare_folder(spec, make_plan(spec), path)
    root = SweepFolder(spec.folder)
    done = root.read_trials()[0].model_copy(update={"state": "done", "attempts": 2})
    root.write_trial(done)
    wider = load_spec(write_spec(folder, {"model.path": ["small", "other"], **PLWS}))
    prepare_folder(wider, make_plan(wider), path)
    known = root.read_trial(done.id)
    assert known is not None
    assert known.searched == {"model.path": "small", "loss.prompt_loss_weight": 0}
    assert (known.state, known.attempts) == ("done", 2)


def test_plan_has_memory_by_zero_stage_and_cost(folder: Path) -> None:
    # Weights, gradients, master weights and two moments in float32: 20 bytes per parameter. ZeRO 1
    # shards the last three over two workers, ZeRO 2 also the gradients, ZeRO 3 all. Buckets add 4,
    # 4, 8 and 12, because the model is smaller than one.
    plan = plan_of(
        folder,
        PLWS,
        resources={"workers_per_trial": 2, "gpus_per_worker": 1, "price_per_gpu_hour": 3},
    )
    size = plan.bases[0].model["num_parameters"]
    assert plan.memory_by_zero_stage is not None
    assert {
        stage: None if gib is None else round(gib * 2**30 / size, 6)
        for stage, gib in plan.memory_by_zero_stage.items()
    } == {0: 20, 1: 18, 2: 20, 3: 22}
    seconds = sum(trial.estimated_train_seconds or 0 for trial in plan.trials)
    assert plan.estimated_gpu_hours == pytest.approx(2 * seconds / 3600)
    assert plan.estimated_cost == pytest.approx(6 * seconds / 3600)


def test_an_impossible_stage_has_no_memory_estimate(folder: Path) -> None:
    plan = plan_of(folder, PLWS, deepspeed={"precision": "bfloat16", "zero_stage": 2})
    assert plan.memory_by_zero_stage is not None
    assert plan.memory_by_zero_stage[0] is None
    assert plan.memory_by_zero_stage[2] == plan.estimated_memory_gib
    assert plan.estimated_cost is None
    assert json.loads(plan.model_dump_json())["memory_by_zero_stage"]["0"] is None


def test_a_plan_of_several_data_sets_counts_repeats_and_does_not_depend_on_paths(
    folder: Path,
) -> None:
    def plan() -> SweepPlan:
        sources = [{"path": "sums.jsonl", "repeat": 2}, {"path": "parts/*.jsonl"}]
        data = {"template": "plain", "max_length": 64, "heldout_examples": 8}
        return plan_of(folder, PLWS, data={"sources": sources, **data})

    (folder / "parts").mkdir()
    shutil.copy(folder / "more.jsonl", folder / "parts")
    before = plan()
    [base] = before.bases
    num_heldout = base.data[0]["num_heldout"]
    assert 150 - num_heldout < base.data[0]["num_train"] <= 2 * 60 + 90 - num_heldout
    assert base.data[0]["sources"][0]["path"] == str(folder / "sums.jsonl")
    (folder / "parts/more.jsonl").rename(folder / "parts/renamed.jsonl")
    assert [trial.id for trial in plan().trials] == [trial.id for trial in before.trials]


def test_two_sources_without_repeats_give_the_trials_of_a_folder_with_both(folder: Path) -> None:
    settings = {"template": "plain", "max_length": 64, "heldout_examples": 8}
    (folder / "both").mkdir()
    for name in ("sums.jsonl", "more.jsonl"):
        shutil.copy(folder / name, folder / "both")
    sources = [{"path": "more.jsonl"}, {"path": "sums.jsonl"}]
    mixed = plan_of(folder, PLWS, data={"sources": sources, **settings})
    together = plan_of(folder, PLWS, data={"path": "both", **settings})
    assert [trial.id for trial in mixed.trials] == [trial.id for trial in together.trials]
