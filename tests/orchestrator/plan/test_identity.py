"""Trial ids: what changes them, and which changes of a later release keep them."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.plan.behaviour import CHANGES, BehaviourChange
from orchestrator.plan.fingerprint import (
    fingerprint_baseline,
    fingerprint_examples,
    fingerprint_trial,
)
from orchestrator.plan.identity_baseline import ADDED, BASELINE, baseline_names
from orchestrator.plan.legacy_ids import legacy_trial_id
from orchestrator.spec.setting_fields import INTERVAL_SETTINGS, setting_fields, with_values
from trainers.config import TrainConfig
from trainers.data.readers import read_examples

MODEL, DATA = "sha256:0f1e2d3c4b5a6978", "sha256:a1b2c3d4e5f60718"


def settings(**values: Any) -> dict[str, Any]:
    """The defaults with values by dotted path, its dots written as two underscores.

    The template is alpaca and the precision float32, which no behaviour change affects.
    """
    given = {"data.template": "alpaca", "deepspeed.precision": "float32"} | {
        name.replace("__", "."): value for name, value in values.items()
    }
    base = TrainConfig.model_validate({"model": {"path": "m"}, "data": {"path": "d"}})
    return with_values(base.model_dump(mode="json"), given)


def trial_id(trial: Mapping[str, Any]) -> str:
    return fingerprint_trial(trial, MODEL, DATA)


def test_ids_of_known_settings() -> None:
    # These literals may never change: an id that moves makes a sweep train its trials again.
    lora = {"rank": 16, "alpha": 32.0, "dropout": 0.0, "target_modules": None}
    assert trial_id(settings()) == "ba3d7ce48b"
    assert trial_id(settings(loss__prompt_loss_weight=0.1)) == "ccf5c37696"
    assert trial_id(settings(optimizer__l2_sp=0.01, seed=3)) == "c52468ea64"
    assert trial_id(settings(lora=lora)) == "94d3e01058"
    assert trial_id(settings(deepspeed__override={"a": {"b": 1}})) == "a3385c4ca9"
    assert trial_id(settings(data__template="chat")) == "a1dd738673"


def test_trials_in_bfloat16_are_not_those_of_the_release_that_summed_gradients_in_it() -> None:
    assert trial_id(settings(deepspeed__precision="bfloat16")) == "058ccc80b0"
    assert trial_id(settings(deepspeed__precision="bfloat16")) != "14c416062a"


def test_trials_with_weight_decay_are_not_those_of_the_release_that_decayed_norms() -> None:
    assert trial_id(settings(optimizer__weight_decay=0.1)) == "15e81c5af8"
    assert trial_id(settings(optimizer__weight_decay=0.1)) != "2cf9f87035"
    assert legacy_trial_id(settings(optimizer__weight_decay=0.1), MODEL, DATA) is None


def test_each_setting_that_determines_a_result_changes_the_id() -> None:
    ids = [
        trial_id(settings()),
        fingerprint_trial(settings(), "sha256:other", DATA),
        fingerprint_trial(settings(), MODEL, "sha256:other"),
        trial_id(settings(model__dropout=0.0)),
        trial_id(settings(schedule__steps=3, schedule__epochs=None)),
        trial_id(settings(batch__packing=True)),
        trial_id(settings(lora={"rank": 16})),
        trial_id(settings(lora={"rank": 8})),
        trial_id(settings(data__template="plain")),
    ]
    assert len(set(ids)) == len(ids)


def test_paths_logging_and_checkpoints_are_no_part_of_an_id() -> None:
    moved = settings(
        model__path="elsewhere",
        data__path="elsewhere.jsonl",
        log_every_steps=50,
        log_heldout_every_steps=5,
        checkpoint__every_steps=10,
        profile_steps=[1, 2],
    )
    assert trial_id(moved) == trial_id(settings())


def test_a_whole_number_is_the_same_setting_as_an_integer() -> None:
    assert trial_id(settings(schedule__epochs=2)) == trial_id(settings(schedule__epochs=2.0))


def test_every_setting_has_a_frozen_value() -> None:
    """A new setting needs a line in ADDED; a renamed one an entry in RENAMED_SETTINGS."""
    frozen = {**BASELINE, **ADDED}
    names = baseline_names()
    leaves = {
        names.get(dotted, dotted)
        for dotted in setting_fields()
        if dotted not in ("model.path", "data.path")
        and dotted.partition(".")[0] not in INTERVAL_SETTINGS
    }
    lora = {name for name in frozen if name.startswith("lora.")}
    assert leaves == frozen.keys() - lora


def test_a_new_setting_at_its_frozen_value_keeps_all_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    before = trial_id(settings(seed=1))
    newer = copy.deepcopy(settings(seed=1))
    newer["loss"]["thinking_weight"] = None
    assert trial_id(newer) != before
    monkeypatch.setitem(ADDED, "loss.thinking_weight", None)  # type: ignore[arg-type]
    assert trial_id(newer) == before
    newer["loss"]["thinking_weight"] = 0.5
    assert trial_id(newer) != before


def test_a_changed_default_changes_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """An id depends on the value that is used, not on the default that it came from."""
    assert trial_id(settings(optimizer__beta2=0.95)) != trial_id(settings())
    assert trial_id(settings(optimizer__beta2=0.999)) == trial_id(settings())


def test_a_renamed_setting_keeps_all_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    default, changed = settings(), settings(loss__label_smoothing=0.1)
    before = [trial_id(default), trial_id(changed)]
    monkeypatch.setattr(
        "orchestrator.plan.identity_baseline.RENAMED_SETTINGS",
        {
            "optimizer.distance_penalty": "optimizer.l2_sp",
            "loss.label_smoothing": "loss.smoothing",
        },
    )
    for trial in (default, changed):
        trial["loss"]["smoothing"] = trial["loss"].pop("label_smoothing")
    assert [trial_id(default), trial_id(changed)] == before


def test_a_behaviour_change_renames_only_the_trials_that_it_affects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    affected, other = settings(optimizer__l2_sp=0.01), settings()
    before = [trial_id(affected), trial_id(other)]
    assert legacy_trial_id(affected, MODEL, DATA) is not None
    for version in (1, 2):
        change = BehaviourChange(version, lambda trial: trial["optimizer"]["l2_sp"] > 0)
        monkeypatch.setitem(CHANGES, "l2_sp", change)
        before.append(trial_id(affected))
        assert trial_id(other) == before[1]
    assert len(set(before)) == 4
    assert legacy_trial_id(affected, MODEL, DATA) is None
    assert legacy_trial_id(other, MODEL, DATA) is not None


def test_ids_of_the_release_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Literals from the code of that release."""
    lora = {"rank": 16, "alpha": 32.0, "dropout": 0.0, "target_modules": None}
    assert legacy_trial_id(settings(), MODEL, DATA) == "5824b1b61d"
    assert legacy_trial_id(settings(lora=lora), MODEL, DATA) == "3dc875a694"
    trial = settings(optimizer__l2_sp=0.01, schedule__epochs=2.0)
    assert legacy_trial_id(trial, MODEL, DATA) == "961786b818"
    trial["loss"]["thinking_weight"] = 0.5
    assert legacy_trial_id(trial, MODEL, DATA) is None
    monkeypatch.setitem(ADDED, "loss.thinking_weight", 0.5)  # type: ignore[arg-type]
    assert legacy_trial_id(trial, MODEL, DATA) == "961786b818"


PLAIN = {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}


def digest(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return fingerprint_examples(read_examples(str(path)))


def test_weights_tools_and_reasoning_make_other_data(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    user, assistant = PLAIN["messages"]
    variants = [
        PLAIN,
        {"messages": [user, {**assistant, "weight": 0}, user, assistant]},
        {"messages": [user, {**assistant, "weight": 1}, user, assistant]},
        {"messages": [user, assistant, user, assistant]},
        {"messages": [{**user, "weight": 0}, assistant]},
        {"messages": [user, {**assistant, "reasoning_content": "2 and 2"}]},
        {**PLAIN, "tools": [{"name": "add"}]},
    ]
    digests = [digest(path, record) for record in variants]
    assert len(set(digests)) == len(digests)


def test_data_without_extras_keeps_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    assert digest(path, PLAIN) == "sha256:c868496f644f2700"
    user, assistant = PLAIN["messages"]
    noted = {"messages": [{**user, "weight": None}, assistant], "source": "a", "tools": None}
    assert digest(path, noted) == digest(path, PLAIN)


def test_baseline_keys_change_with_the_rendering_of_chats_alone() -> None:
    """Literals of the release before; its chats were rendered differently."""
    known: dict[str, Any] = {"model": MODEL, "items": "d1", "max_length": 64}
    assert fingerprint_baseline(template="alpaca", **known) == "c8ef278a"
    assert fingerprint_baseline(template="chat", **known) != "9727b937"


def test_truncation_changes_only_the_ids_of_data_that_is_truncated() -> None:
    def cut(**values: Any) -> str:
        return fingerprint_trial(settings(**values), MODEL, DATA, is_truncated=True)

    assert cut() != trial_id(settings())
    assert legacy_trial_id(settings(), MODEL, DATA, is_truncated=True) is None
    right = {"data__truncation_side": "right"}
    assert len({cut(), cut(**right), cut(data__too_long_completion="truncate")}) == 3
    known: dict[str, Any] = {"model": MODEL, "items": "d1", "max_length": 64, "template": "alpaca"}
    keys = {fingerprint_baseline(**known, truncation_side=side) for side in (None, "left", "right")}
    assert len(keys) == 3
