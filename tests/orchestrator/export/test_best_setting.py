"""Tests of the best setting of a sweep and of `plw train --best`."""

import json
import math
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from orchestrator.analysis.sweep_findings import read_findings
from orchestrator.export.best_setting import best_setting
from orchestrator.record.folder import SweepFolder
from tests.orchestrator.plw import plw, refused
from tests.orchestrator.sweeps import (
    OTHER_BASE,
    base_record,
    card,
    hill,
    trial,
    write_hill,
    write_sweep,
    write_two_models,
)
from tests.trainers.tiny_runs import whole_settings
from trainers.config import TrainConfig
from trainers.foundation.settings_file import load_config

ACCURACY = "quiz.acc"
ANSWER = "Overall: best PLW 0.2"


def config_of(folder: Path) -> TrainConfig:
    return load_config(TrainConfig, folder / "config.yaml")


def choice_of(folder: Path) -> Any:
    return json.loads((folder / "choice.json").read_text())


def test_the_weight_of_the_reports_answer_is_used(tmp_path: Path) -> None:
    folder = write_hill(tmp_path / "s")
    lead = read_findings(folder).verdicts[0]
    assert lead.best_plw is not None
    output = plw("train", "--best", folder.root, "--config-only").output
    weight = float(f"{lead.best_plw:.4g}")
    assert lead.text.endswith("; nearest tried: 0.25)")
    assert output.startswith(f"PLW {weight:g}: Overall: {lead.text}\n")
    final = folder.root / "final"
    assert f"next: plw train {final / 'config.yaml'} -o {final}" in output
    config = config_of(final)
    assert config.loss.prompt_loss_weight == weight
    assert config.optimizer.learning_rate == 1e-4
    assert config.data.heldout_examples == 256
    choice = choice_of(final)
    # The trials at PLW 0.25, the nearest that was tried.
    assert (choice["measure"], choice["trial_ids"]) == ("overall", ["12", "13", "14"])


@pytest.mark.slow
def test_all_data_trains_the_final_model_and_a_rerun_is_safe(tmp_path: Path) -> None:
    trials, cards = hill(seeds=1, noise=0.002)
    tuned = [
        t.model_copy(update={"settings": whole_settings(tmp_path, t.prompt_loss_weight)})
        for t in trials
    ]
    folder = write_sweep(tmp_path / "s", tuned, cards)
    for _ in range(2):
        output = plw("train", "--best", folder.root, "--all-data").output
        assert ANSWER in output
    result = json.loads((folder.root / "final" / "train.json").read_text())
    assert result["config"]["loss"]["prompt_loss_weight"] == pytest.approx(0.24, abs=0.05)
    assert result["config"]["data"]["heldout_examples"] == 0
    assert (folder.root / "final" / "model" / "model.safetensors").exists()


def test_overrides_and_all_data_reach_the_config(tmp_path: Path) -> None:
    folder = write_hill(tmp_path / "s")
    out = tmp_path / "out"
    options = ("--all-data", "--set", "schedule.steps=7", "--set", "seed=3")
    plw("train", "--best", folder.root, "-o", out, "--config-only", *options)
    config = config_of(out)
    assert (config.schedule.steps, config.seed) == (7, 3)
    assert config.data.heldout_examples == 0
    assert config.data.train_examples is None


def test_a_sweep_without_a_best_weight_is_rejected_with_advice(demo_sweep: SweepFolder) -> None:
    output = refused("train", "--best", demo_sweep.root, "--config-only")
    assert "the sweep names no best PLW: Overall: cannot say: 1 residual degree" in output
    assert "give --plw, or --measure with one of overall, multiple_choice, short_gen" in output
    assert not (demo_sweep.root / "final").exists()


def test_plw_overrides_the_answer(demo_sweep: SweepFolder) -> None:
    output = plw("train", "--best", demo_sweep.root, "--plw", 0.3, "--config-only").output
    assert output.startswith("PLW 0.3: set with --plw\n")
    assert config_of(demo_sweep.root / "final").loss.prompt_loss_weight == 0.3


def test_a_measure_selects_the_maximum_of_its_curve(demo_sweep: SweepFolder) -> None:
    best = best_setting(demo_sweep, "long_generation", None)
    assert 0.5 < best.prompt_loss_weight <= 1
    best = best_setting(demo_sweep, "overall", None)
    assert best.reason.startswith(
        "Overall: cannot say: 1 residual degree of freedom to estimate noise"
    )
    assert best.reason.endswith(
        "; PLW 0.02887 is the maximum of the fitted curve, and the nearest tried is 0.01"
    )
    assert 0 < best_setting(demo_sweep, "heldout_completion_loss", None).prompt_loss_weight < 0.1


def test_the_better_of_two_weights_is_used(tmp_path: Path) -> None:
    best = best_setting(write_sweep(tmp_path / "s", *hill((0.0, 0.25))), None, None)
    assert best.prompt_loss_weight == 0.25
    assert best.reason.startswith("Overall: PLW 0.25 is better than PLW 0 by ")


def test_with_one_weight_a_measure_selects_it(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", *hill((0.25,)))
    assert "names no best PLW: Overall: cannot say: at least two weights with scores" in refused(
        "train", "--best", folder.root, "--config-only"
    )
    best = best_setting(folder, "overall", None)
    assert best.prompt_loss_weight == 0.25
    assert best.reason.endswith("; PLW 0.25 is the best observed")


def test_of_tied_weights_the_one_with_the_highest_mean_is_used(tmp_path: Path) -> None:
    trials, cards = [], {}
    means = {0.0: 0.4, 0.01: 0.5, 0.05: 0.5, 0.1: 0.502, 0.5: 0.5, 1.0: 0.5}
    for number, (weight, seed) in enumerate(product(means, range(3))):
        record = trial(weight, seed=seed, searched={"seed": seed})
        trials.append(record)
        share = means[weight] + 0.001 * ((7 * number) % 5 - 2)
        cards[record.id] = card({ACCURACY: (share, share - 0.1, share + 0.1)})
    best = best_setting(write_sweep(tmp_path / "s", trials, cards), None, None)
    assert best.prompt_loss_weight == 0.1
    assert best.reason == (
        "Multiple choice: tied for best: the 5 weights from 0.01 to 1 (no significant difference; "
        "best mean: 0.1); PLW 0 is worse; using PLW 0.1"
    )


def test_without_an_effect_a_weight_is_used_and_the_reason_says_so(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", *hill(bend=0.0, noise=0.003))
    best = best_setting(folder, None, None)
    assert best.reason.startswith("Overall: no effect: between PLW 0 and 1, scores differ by")
    assert " less than the margin of 1; PLW " in best.reason
    assert "gain" not in best.reason


def test_other_settings_are_those_of_the_best_observed_trial(
    tmp_path: Path,
) -> None:
    trials, cards = [], {}
    for rate, shift in ((1e-5, 0.0), (1e-4, 0.1)):
        records, scores = hill(noise=0.01)
        for record in records:
            found = trial(
                record.prompt_loss_weight,
                seed=int(record.settings["seed"]),
                searched={"optimizer.learning_rate": rate},
            )
            trials.append(found)
            value = scores[record.id].by_name()[ACCURACY].value + shift
            cards[found.id] = card({ACCURACY: (value, value - 0.05, value + 0.05)})
    best = best_setting(write_sweep(tmp_path / "s", trials, cards), None, None)
    assert best.prompt_loss_weight == pytest.approx(0.24, abs=0.05)
    assert best.settings["optimizer"]["learning_rate"] == 1e-4
    assert best.reason.endswith(
        "with optimizer.learning_rate 0.0001, the best observed at this weight"
    )


def test_in_a_search_other_settings_are_those_of_the_best_trial_at_any_weight(
    tmp_path: Path,
) -> None:
    # A rate of its own for each weight. The best weight is 0.1, but it was tried at a bad rate.
    rates = {0.0: 1e-4, 0.01: 3e-5, 0.05: 1e-3, 0.1: 1e-5, 0.3: 5e-4, 0.6: 2e-5, 1.0: 2e-4}
    trials, cards = [], {}
    for number, (weight, rate) in enumerate(rates.items()):
        loss = 1.2 + 0.2 * (weight**0.30103 - 0.5) ** 2 + 0.5 * math.log10(rate / 1e-4) ** 2
        trials.append(trial(weight, searched={"optimizer.learning_rate": rate}))
        loss += 1e-4 * (number % 3)
        cards[trials[-1].id] = card({"heldout_completion_loss": (loss, None, None)})
    folder = write_sweep(tmp_path / "s", trials, cards)
    best = best_setting(folder, "heldout_completion_loss", None)
    assert best.prompt_loss_weight == pytest.approx(0.1, abs=0.03)
    assert (best.settings["optimizer"]["learning_rate"], best.trial_ids) == (1e-4, [trials[0].id])
    assert "is the minimum of the fitted curve, and the nearest tried is 0.1" in best.reason
    assert best.reason.endswith(
        "; with optimizer.learning_rate 0.0001, the best observed at any weight (at PLW 0)"
    )


def test_a_measure_selects_the_best_observed_setting_without_searched_weights(
    tmp_path: Path,
) -> None:
    trials = [trial(0.1, searched={"optimizer.learning_rate": rate}) for rate in (1e-5, 1e-4)]
    values = ((0.5, 0.4, 0.6), (0.7, 0.6, 0.8))
    cards = {t.id: card({ACCURACY: v}) for t, v in zip(trials, values, strict=True)}
    folder = write_sweep(tmp_path / "s", trials, cards)
    output = refused("train", "--best", folder.root, "--config-only")
    assert "PLW was 0.1 in every trial, so this sweep does not show its effect" in output
    best = best_setting(folder, "multiple_choice", None)
    assert (best.prompt_loss_weight, best.trial_ids) == (0.1, [trials[1].id])


def test_an_answer_for_two_models_is_rejected(tmp_path: Path) -> None:
    folder = write_two_models(tmp_path / "s")
    assert "cannot say" in refused("train", "--best", folder.root, "--config-only")
    output = refused("train", "--best", folder.root, "--plw", 0.2, "--config-only")
    assert "the answer is for several models or data sets; a final model" in output


def test_a_verdict_on_one_of_two_models_is_accepted(tmp_path: Path) -> None:
    bases = [base_record(model="/m/weak"), base_record(OTHER_BASE, model="/m/strong")]
    trials, cards = [], {}
    for base in bases:
        records, scores = hill(noise=0.01)
        for record in records:
            found = record.model_copy(update={"id": f"{base.key}-{record.id}", "base": base.key})
            trials.append(found)
            cards[found.id] = scores[record.id]
    folder = write_sweep(tmp_path / "s", trials, cards, bases=bases)
    output = refused("train", "--best", folder.root, "--config-only")
    assert "give --measure with one of overall-model-strong, overall-model-weak" in output
    best = best_setting(folder, "overall-model-weak", None)
    assert best.prompt_loss_weight == pytest.approx(0.24, abs=0.05)
    assert all(trial_id.startswith("0a1b2c3d-") for trial_id in best.trial_ids)


def test_the_final_model_has_the_learning_rate_of_the_answer(tmp_path: Path) -> None:
    records, scores = hill(noise=0.01)
    trials, cards = [], {}
    for rate in (1e-4, 3e-4):
        for record in records:
            searched = {"seed": record.settings["seed"], "optimizer.learning_rate": rate}
            found = trial(record.prompt_loss_weight, seed=searched["seed"], searched=searched)
            trials.append(found.model_copy(update={"id": f"{rate:g}-{record.id}"}))
            values = {score.name: score.value for score in scores[record.id].scores}
            if rate == 3e-4:
                # Worse on average, but best at one weight.
                better = record.prompt_loss_weight == 0.25
                values["quiz.acc"] += 0.1 if better else -0.1
            cards[trials[-1].id] = card({name: (v, None, None) for name, v in values.items()})
    folder = write_sweep(tmp_path / "s", trials, cards)
    output = plw("train", "--best", folder.root, "--config-only").output
    assert "Overall at learning rate 0.0001: best PLW 0.2" in output
    assert "with optimizer.learning_rate 0.0001" in output
    assert config_of(folder.root / "final").optimizer.learning_rate == 1e-4
    other = best_setting(folder, "overall-learning-rate-0.0003", None)
    assert other.settings["optimizer"]["learning_rate"] == 3e-4
    assert other.prompt_loss_weight == 0.25


def test_an_unknown_measure_and_a_sweep_without_scores_are_rejected(
    tmp_path: Path, demo_sweep: SweepFolder
) -> None:
    assert "the sweep has no verdict nothing; give one of overall, multiple_choice" in refused(
        "train", "--best", demo_sweep.root, "--measure", "nothing"
    )
    folder = write_sweep(tmp_path / "s", [trial(0.1, state="pending")], {})
    assert "no trial has scores yet" in refused("train", "--best", folder.root)


def test_a_folder_with_a_model_of_other_settings_is_rejected(tmp_path: Path) -> None:
    folder = write_hill(tmp_path / "s")
    plw("train", "--best", folder.root, "--config-only")
    plw("train", "--best", folder.root, "--config-only")
    output = refused("train", "--best", folder.root, "--plw", 1, "--config-only")
    assert "contains a final model with other settings; give another --output-dir" in output
    assert config_of(folder.root / "final").loss.prompt_loss_weight < 0.5


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "give either CONFIG or --best [SWEEP]"),
        (("c.yaml", "--best", "s"), "give either CONFIG or --best [SWEEP]"),
        (("c.yaml",), "give --output-dir"),
        (("c.yaml", "-o", "out", "--all-data"), "require --best"),
    ],
)
def test_incompatible_options_are_rejected(arguments: tuple[str, ...], expected: str) -> None:
    assert expected in refused("train", *arguments)


def test_a_setting_that_the_sweep_has_trained_gets_a_hint(tmp_path: Path) -> None:
    folder = write_hill(tmp_path / "s")

    def output(name: str, *options: object) -> str:
        folders = (folder.root, "--config-only", "-o", tmp_path / name)
        return plw("train", "--best", *folders, *options).output

    hint = "hint: trial 12 was trained with the same settings and seed; --all-data, or another seed"
    assert hint in output("a", "--plw", 0.25)
    assert "hint:" not in output("b", "--plw", 0.3)
    assert "hint:" not in output("c", "--plw", 0.25, "--all-data")
    assert "hint:" not in output("d", "--plw", 0.25, "--set", "seed=7")


def test_a_held_out_loss_requires_held_out_examples() -> None:
    content = {
        "model": {"path": "m"},
        "data": {"path": "d", "heldout_examples": 0},
        "log_heldout_every_steps": 5,
    }
    with pytest.raises(ValueError, match=r"log_heldout_every_steps needs data\.heldout_examples"):
        TrainConfig.model_validate(content)


def test_the_latest_sweep_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_hill(tmp_path / "runs" / "s")
    output = plw("train", "--best", "--config-only").output
    assert "wrote runs/s/final/config.yaml\nnext: plw train runs/s/final/config.yaml" in output
    # By name, with an option after it.
    assert plw("train", "--best", "s", "--config-only").output == output


@pytest.mark.parametrize(("options", "num_ranks"), [((), 2), (("--ranks", 3), 3)])
def test_the_final_model_trains_on_the_ranks_of_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[object, ...], num_ranks: int
) -> None:
    folder = write_hill(tmp_path / "s")
    sweep = folder.read_sweep()
    spec = sweep.spec | {"resources": {"workers_per_trial": 2}}
    folder.write_sweep(sweep.model_copy(update={"spec": spec}))
    final = folder.root / "final"
    assert (
        f"next: plw train {final}/config.yaml -o {final} --ranks 2\n"
        in plw("train", "--best", folder.root, "--config-only").output
    )
    launched: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda _, arguments: launched.append(arguments))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    plw("train", "--best", folder.root, *options)
    assert launched[0][1:] == [
        *("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"),
        *("-m", "trainers", f"{final}/config.yaml", "--output-dir", str(final)),
    ]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert refused("train", "--best", folder.root, *options) == (
        f"PLW {config_of(final).loss.prompt_loss_weight:g}: "
        f"{choice_of(final)['reason']} wrote {final}/config.yaml "
        f"error: --ranks: {num_ranks} ranks need as many GPUs, but this machine has 1; give "
        "--ranks 1, or --config-only and train on a larger machine"
    )


def test_the_config_names_its_sweep(tmp_path: Path) -> None:
    folder = write_hill(tmp_path / "s")
    plw("train", "--best", folder.root, "--config-only")
    text = (folder.root / "final" / "config.yaml").read_text()
    assert re.match(rf"# PLW 0\.2\d+, from the sweep demo: {ANSWER}", text)
    assert 0.2 < YAML(typ="safe").load(text)["loss"]["prompt_loss_weight"] < 0.3
