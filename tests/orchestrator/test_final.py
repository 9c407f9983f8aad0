"""From a sweep's answer to the config of the final model."""

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from orchestrator.final import best_setting
from orchestrator.record import SweepFolder
from tests.orchestrator.plw import plw, refused
from tests.orchestrator.sweeps import card, trial, write_sweep, write_two_models
from tests.trainers.runs import whole_settings
from trainers.config import TrainConfig
from trainers.config_file import load_config
from trainers.errors import InputError

ACCURACY = "multiple_choice_accuracy"
CHRF = "long_generation_chrf"


def sweep(root: Path, *scores: dict[str, tuple[float, float, float]]) -> SweepFolder:
    """PLW 0, 0.1, 0.5 and 1, as many as there are scores."""
    trials = [trial(plw) for plw in (0.0, 0.1, 0.5, 1.0)[: len(scores)]]
    return write_sweep(root, trials, {t.id: card(s) for t, s in zip(trials, scores, strict=True)})


def apart(root: Path) -> SweepFolder:
    """PLW 0.1 is clearly best."""
    return sweep(
        root,
        {ACCURACY: (0.3, 0.25, 0.35)},
        {ACCURACY: (0.6, 0.55, 0.65)},
        {ACCURACY: (0.4, 0.35, 0.45)},
    )


def config_of(folder: Path) -> TrainConfig:
    return load_config(TrainConfig, folder / "config.yaml")


def choice_of(folder: Path) -> Any:
    return json.loads((folder / "choice.json").read_text())


def test_the_named_best_weight_is_taken(tmp_path: Path) -> None:
    folder = apart(tmp_path / "s")
    output = plw("train", "--best", folder.root, "--config-only").output
    final = folder.root / "final"
    assert output.startswith("PLW 0.1: Multiple choice, accuracy: PLW 0.1 is best")
    assert f"next: plw train {final / 'config.yaml'} -o {final}" in output
    config = config_of(final)
    assert config.loss.prompt_loss_weight == 0.1
    assert config.optimizer.learning_rate == 1e-4
    assert config.data.heldout_examples == 256
    choice = choice_of(final)
    assert (choice["measure"], choice["trial_ids"]) == (ACCURACY, ["01s0"])


@pytest.mark.slow
def test_the_final_model_is_trained_on_all_data_and_a_rerun_is_safe(tmp_path: Path) -> None:
    tuned = [
        trial(weight).model_copy(update={"settings": whole_settings(tmp_path, weight)})
        for weight in (0.0, 0.1)
    ]
    scores = [{ACCURACY: (0.3, 0.25, 0.35)}, {ACCURACY: (0.6, 0.55, 0.65)}]
    folder = write_sweep(
        tmp_path / "s", tuned, {t.id: card(s) for t, s in zip(tuned, scores, strict=True)}
    )
    for _ in range(2):
        output = plw("train", "--best", folder.root, "--all-data").output
        assert "PLW 0.1: Multiple choice, accuracy: PLW 0.1 is best" in output
    result = json.loads((folder.root / "final" / "train.json").read_text())
    assert result["config"]["loss"]["prompt_loss_weight"] == 0.1
    assert result["config"]["data"]["heldout_examples"] == 0
    assert (folder.root / "final" / "model" / "model.safetensors").exists()


def test_overrides_and_all_data_reach_the_config(tmp_path: Path) -> None:
    folder = apart(tmp_path / "s")
    out = tmp_path / "out"
    options = ("--all-data", "--set", "schedule.steps=7", "--set", "seed=3")
    plw("train", "--best", folder.root, "-o", out, "--config-only", *options)
    config = config_of(out)
    assert (config.schedule.steps, config.seed) == (7, 3)
    assert config.data.heldout_examples == 0
    assert config.data.train_examples is None


def test_a_sweep_that_names_none_is_refused_with_what_to_do(demo_sweep: SweepFolder) -> None:
    output = refused("train", "--best", demo_sweep.root, "--config-only")
    assert "the sweep names no PLW best: Single-seed demo: PLW 0.01 had the highest" in output
    assert "give --plw, or --measure with one of multiple_choice_accuracy, " in output
    assert not (demo_sweep.root / "final").exists()


def test_plw_settles_it(demo_sweep: SweepFolder) -> None:
    output = plw("train", "--best", demo_sweep.root, "--plw", 0.3, "--config-only").output
    assert output.startswith("PLW 0.3: as asked for with --plw\n")
    assert config_of(demo_sweep.root / "final").loss.prompt_loss_weight == 0.3


def test_a_measure_settles_it_by_the_top_of_its_curve(demo_sweep: SweepFolder) -> None:
    best = best_setting(demo_sweep, CHRF, None)
    assert 0.5 < best.prompt_loss_weight <= 1
    assert best.reason.startswith("Long generation, chrF names no PLW best (no PLW stands out")
    best = best_setting(demo_sweep, "heldout_completion_loss", None)
    assert 0 < best.prompt_loss_weight < 0.1


def test_with_three_weights_the_best_tried_is_taken(tmp_path: Path) -> None:
    wide = {ACCURACY: (0.5, 0.2, 0.8)}
    folder = sweep(tmp_path / "s", wide, {ACCURACY: (0.6, 0.3, 0.9)}, wide)
    best = best_setting(folder, ACCURACY, None)
    assert best.prompt_loss_weight == 0.1
    assert best.reason.endswith("; PLW 0.1 is the best tried")


def test_measures_that_name_different_weights_are_refused(tmp_path: Path) -> None:
    folder = sweep(
        tmp_path / "s",
        {ACCURACY: (0.6, 0.55, 0.65), CHRF: (10, 9, 11)},
        {ACCURACY: (0.3, 0.25, 0.35), CHRF: (20, 19, 21)},
    )
    output = refused("train", "--best", folder.root, "--config-only")
    assert "measures name different settings best: PLW 0 for multiple-choice accuracy; " in output
    assert f"choose one with --measure: {ACCURACY}, {CHRF}" in output
    assert best_setting(folder, CHRF, None).prompt_loss_weight == 0.1


def test_two_models_that_are_best_at_one_weight_are_told_apart(tmp_path: Path) -> None:
    folder = write_two_models(tmp_path / "s")
    output = refused("train", "--best", folder.root, "--config-only")
    assert "measures name different settings best" in output
    output = refused("train", "--best", folder.root, "--measure", ACCURACY, "--config-only")
    assert f"2 measures are called {ACCURACY}; give one of {ACCURACY}-0a1b2c3d, " in output
    best = best_setting(folder, f"{ACCURACY}-9f8e7d6c", None)
    assert (best.prompt_loss_weight, best.trial_ids) == (0.1, ["0.1-9f8e7d6c"])
    with pytest.raises(InputError, match="leaves open which of the other searched settings"):
        best_setting(folder, None, 0.2)


def test_an_unknown_measure_and_a_sweep_without_scores_are_refused(
    tmp_path: Path, demo_sweep: SweepFolder
) -> None:
    assert "the sweep has no measure nothing; give one of multiple_choice_accuracy" in refused(
        "train", "--best", demo_sweep.root, "--measure", "nothing"
    )
    folder = write_sweep(tmp_path / "s", [trial(0.1, state="pending")], {})
    assert "no trial has scores yet" in refused("train", "--best", folder.root)


def test_a_final_model_of_other_settings_is_not_mixed_up(tmp_path: Path) -> None:
    folder = apart(tmp_path / "s")
    plw("train", "--best", folder.root, "--config-only")
    plw("train", "--best", folder.root, "--config-only")
    output = refused("train", "--best", folder.root, "--plw", 1, "--config-only")
    assert "holds a final model with other settings; give another --output-dir" in output
    assert config_of(folder.root / "final").loss.prompt_loss_weight == 0.1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "give either CONFIG or --best SWEEP"),
        (("c.yaml", "--best", "s"), "give either CONFIG or --best SWEEP"),
        (("c.yaml",), "give --output-dir"),
        (("c.yaml", "-o", "out", "--all-data"), "belong to --best"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: tuple[str, ...], expected: str
) -> None:
    assert expected in refused("train", *arguments)


def test_a_held_out_loss_needs_held_out_examples() -> None:
    content = {
        "model": {"path": "m"},
        "data": {"path": "d", "heldout_examples": 0},
        "log_heldout_every_steps": 5,
    }
    with pytest.raises(ValueError, match=r"log_heldout_every_steps needs data\.heldout_examples"):
        TrainConfig.model_validate(content)


def test_the_config_says_where_it_comes_from(tmp_path: Path) -> None:
    folder = apart(tmp_path / "s")
    plw("train", "--best", folder.root, "--config-only")
    text = (folder.root / "final" / "config.yaml").read_text()
    assert text.startswith("# PLW 0.1, from the sweep demo: Multiple choice, accuracy: PLW 0.1 is")
    assert YAML(typ="safe").load(text)["loss"]["prompt_loss_weight"] == 0.1
